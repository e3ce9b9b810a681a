//! Callers who are narrowed to some calls: for them, no others exist.

use std::sync::Arc;

use proptest::{option, prelude::*, sample::select};
use voicecall::domain::{
    Call, Change, ChangeKind, Command, Filter, Identifier, Narrowing, StaffNarrowing, Timestamp,
    View,
    machine::{self, CallState, Rejection, Step},
    narrowing::is_unassigned,
    view::{Disclosure, EventType},
};

use crate::{
    config,
    strategies::{UID, any_call, any_command, any_draft, any_identifier},
};

fn any_narrowing() -> impl Strategy<Value = Narrowing> {
    let staff =
        (any_identifier(), any::<bool>()).prop_map(|(staff_uid, unassigned)| StaffNarrowing {
            staff_uid,
            unassigned,
        });
    (option::of(staff), option::of(any_identifier()))
        .prop_filter_map("it narrows", |(staff, client_uid)| {
            Narrowing::new(staff, client_uid)
        })
}

/// The rule in other words than those of the code.
fn is_theirs(narrowing: &Narrowing, call: &Call) -> bool {
    let a = &call.attributes;
    let staff = narrowing.staff().is_none_or(|staff| {
        let theirs = [&a.staff_uid, &a.handled_by_staff_uid];
        let is_assigned = theirs.iter().any(|uid| uid.is_some()) || a.handled_at.is_some();
        theirs.contains(&&Some(staff.staff_uid.clone())) || !is_assigned && staff.unassigned
    });
    let client = narrowing.client_uid().cloned();
    staff && (client.is_none() || client == a.client_uid)
}

fn change(before: Option<Call>, after: Option<Call>, kind: ChangeKind) -> Change {
    Change {
        revision: 9,
        kind: Some(kind),
        uid: UID,
        before: before.map(Arc::new),
        after: after.map(Arc::new),
        actor: None,
        request_id: None,
        transaction_end: true,
        changed_at: Timestamp::clamped(9),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_covered(narrowing in any_narrowing(), call in any_call()) {
        prop_assert_eq!(narrowing.covers(&call.attributes), is_theirs(&narrowing, &call));
        if is_unassigned(&call.attributes) {
            prop_assert!(call.attributes.handled_by_staff_uid.is_none());
        }
    }

    #[test]
    fn a_call_of_others_and_a_purged_one_are_like_none(
        narrowing in any_narrowing(),
        call in any_call(),
        command in any_command(),
    ) {
        let apply = |state| machine::apply(state, &command, Some(&narrowing));
        let absent = apply(CallState::Absent);
        prop_assert_eq!(&apply(CallState::Purged), &absent);
        if !is_theirs(&narrowing, &call) {
            prop_assert_eq!(&apply(CallState::Call(&call)), &absent);
        }
        prop_assert!(!matches!(absent, Ok(Step::Change(..) | Step::Purge)), "{absent:?}");
    }

    #[test]
    fn a_call_of_theirs_stays_theirs(
        narrowing in any_narrowing(),
        mut call in any_call(),
        command in any_command(),
    ) {
        if !is_theirs(&narrowing, &call) {
            let attributes = &mut call.attributes;
            attributes.staff_uid = narrowing.staff().map(|staff| staff.staff_uid.clone());
            attributes.client_uid = narrowing.client_uid().cloned();
        }
        let result = machine::apply(Some(&call), &command, Some(&narrowing));
        let whole = machine::apply(Some(&call), &command, None);
        match &result {
            Err(Rejection::OutOfScope) => match (&command, &whole) {
                (Command::Create(_) | Command::Purge { .. }, _) => {}
                (Command::Handle { handled_by_staff_uid: by, .. }, _)
                    if narrowing.staff().is_some_and(|staff| staff.staff_uid != *by) => {}
                (_, Ok(Step::Change(_, after))) => {
                    let after = after.clone().commit(9, Timestamp::clamped(9));
                    prop_assert!(!is_theirs(&narrowing, &after));
                }
                (_, whole) => prop_assert!(false, "{whole:?}"),
            },
            result => {
                prop_assert_eq!(result, &whole);
                if let Ok(Step::Change(_, after)) = result {
                    let after = after.clone().commit(9, Timestamp::clamped(9));
                    prop_assert!(is_theirs(&narrowing, &after));
                }
            }
        }
    }

    #[test]
    fn a_new_call_is_theirs(narrowing in any_narrowing(), draft in any_draft()) {
        let created = machine::create(&draft, Some(&narrowing));
        let whole = machine::create(&draft, None).expect("nobody is narrowed");
        let call = whole.clone().commit(9, Timestamp::clamped(9));
        match is_theirs(&narrowing, &call) {
            true => prop_assert_eq!(created, Ok(whole)),
            false => prop_assert_eq!(created, Err(Rejection::OutOfScope)),
        }
    }

    /// The events are those of a log that has the states that they may see, and no others.
    #[test]
    fn an_event_tells_what_they_may_see(
        narrowing in any_narrowing(),
        before in option::of(any_call()),
        after in any_call(),
        staff_uids in option::of(any_identifier()),
        show_deleted in any::<bool>(),
    ) {
        let filter = Filter {
            staff_uids: staff_uids.into_iter().collect::<Vec<Identifier>>(),
            show_deleted,
            ..Filter::default()
        };
        let view = |narrowing| View { filter: filter.clone(), narrowing };
        let (all, theirs) = (view(None), view(Some(Arc::new(narrowing.clone()))));
        let sees = |call: &Call| is_theirs(&narrowing, call);
        let (seen_before, sees_after) = (before.clone().filter(sees), sees(&after));
        let event = theirs.event(&change(before.clone(), Some(after.clone()), ChangeKind::Updated));
        let seen = change(seen_before.clone(), Some(after.clone()), ChangeKind::Updated);
        if sees_after {
            let expected = all.event(&seen);
            prop_assert_eq!(event.map(|it| it.event_type), expected.map(|it| it.event_type));
            let hides_before = before.is_some() && seen_before.is_none();
            if let Some(event) = event {
                prop_assert_eq!(event.disclosure == Disclosure::After, hides_before);
                prop_assert_ne!(event.disclosure, Disclosure::CallAndTime);
            }
        } else {
            let was_in = seen_before.is_some_and(|call| filter.matches(&call));
            prop_assert_eq!(event.is_some(), was_in);
            if let Some(event) = event {
                prop_assert_eq!(event.event_type, EventType::Exited);
                prop_assert_eq!(event.disclosure, Disclosure::CallAndTime);
            }
        }
    }

    #[test]
    fn a_purge_is_told_to_all(narrowing in any_narrowing(), other in select(&[true, false][..])) {
        let uids = if other { vec![uuid::Uuid::nil()] } else { Vec::new() };
        let filter = Filter { uids, ..Filter::default() };
        let view = View { filter, narrowing: Some(Arc::new(narrowing)) };
        let event = view.event(&change(None, None, ChangeKind::Purged));
        prop_assert_eq!(event.is_none(), other);
        if let Some(event) = event {
            prop_assert_eq!(event.event_type, EventType::Purged);
            prop_assert_eq!(event.disclosure, Disclosure::CallAndTime);
        }
    }
}
