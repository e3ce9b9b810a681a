//! The state machine: commands at random on calls at random.

use proptest::{collection::vec, option, prelude::*};
use voicecall::domain::{
    Attributes, Call, ChangeKind, Command, Edit, Field, Patch, PendingCall, PendingTime, Timestamp,
    command::WhenMissing,
    machine::{self, CallState, Rejection, Step},
};

use crate::{
    any_time, config,
    strategies::{
        UID, any_attributes, any_call, any_command, any_command_time, any_draft, any_patch,
    },
};

/// Whether the patch writes the field.
fn names(patch: &Patch, field: Field) -> bool {
    match field {
        Field::Duration => patch.duration != Edit::Keep,
        Field::Status => patch.status.is_some(),
        Field::Direction => patch.direction.is_some(),
        Field::StaffUid => patch.staff_uid != Edit::Keep,
        Field::ClientUid => patch.client_uid != Edit::Keep,
        Field::FromNumber => patch.from_number != Edit::Keep,
        Field::ToNumber => patch.to_number != Edit::Keep,
        Field::RecordingUrl => patch.recording_url != Edit::Keep,
        Field::CallSummary => patch.call_summary != Edit::Keep,
        Field::ExternalAppUrl => patch.external_app_url != Edit::Keep,
        Field::HandledByStaffUid => patch.handled_by_staff_uid != Edit::Keep,
        Field::HandledAt => patch.handled_at != Edit::Keep,
        Field::Uid | Field::CreatedAt | Field::UpdatedAt | Field::DeletedAt | Field::Revision => {
            false
        }
    }
}

/// Takes one field over from other attributes.
fn take_over(target: &mut Attributes, field: Field, other: Attributes) {
    match field {
        Field::Duration => target.duration = other.duration,
        Field::Status => target.status = other.status,
        Field::Direction => target.direction = other.direction,
        Field::StaffUid => target.staff_uid = other.staff_uid,
        Field::ClientUid => target.client_uid = other.client_uid,
        Field::FromNumber => target.from_number = other.from_number,
        Field::ToNumber => target.to_number = other.to_number,
        Field::RecordingUrl => target.recording_url = other.recording_url,
        Field::CallSummary => target.call_summary = other.call_summary,
        Field::ExternalAppUrl => target.external_app_url = other.external_app_url,
        Field::HandledByStaffUid => target.handled_by_staff_uid = other.handled_by_staff_uid,
        Field::HandledAt => target.handled_at = other.handled_at,
        Field::Uid | Field::CreatedAt | Field::UpdatedAt | Field::DeletedAt | Field::Revision => {}
    }
}

/// The same command without a check of the revision.
fn unconditional(command: &Command) -> Command {
    let mut command = command.clone();
    match &mut command {
        Command::Create(_) | Command::Purge { .. } => {}
        Command::Update {
            expected_revision, ..
        }
        | Command::Handle {
            expected_revision, ..
        }
        | Command::Delete {
            expected_revision, ..
        }
        | Command::Undelete {
            expected_revision, ..
        } => *expected_revision = None,
    }
    command
}

/// What every change of a call must be.
fn check_change(before: &Call, kind: ChangeKind, after: &PendingCall) -> Result<(), TestCaseError> {
    prop_assert_eq!(after.uid, before.uid);
    prop_assert_eq!(after.created_at, PendingTime::Known(before.created_at));
    prop_assert_eq!(after.updated_at, PendingTime::AtCommit);
    prop_assert!(
        before.attributes.status.is_open() || !after.attributes.status.is_open(),
        "a closed call was opened"
    );
    prop_assert_eq!(before.deleted_at.is_some(), kind == ChangeKind::Undeleted);
    prop_assert_eq!(after.deleted_at.is_some(), kind == ChangeKind::Deleted);
    prop_assert!(kind != ChangeKind::Created);
    let changed = after.changed_fields(before);
    match kind {
        ChangeKind::Deleted | ChangeKind::Undeleted => {
            prop_assert_eq!(&after.attributes, &before.attributes.clone().into());
        }
        _ => prop_assert!(
            Field::WRITABLE
                .into_iter()
                .any(|field| changed.contains(field)),
            "a change that changes nothing"
        ),
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_change_keeps_the_rules_of_life(call in any_call(), command in any_command()) {
        match machine::apply(Some(&call), &command, None) {
            Ok(Step::Change(kind, after)) => check_change(&call, kind, &after)?,
            Ok(Step::Absent) => prop_assert!(false, "there is a call"),
            Ok(Step::Purge) => prop_assert!(matches!(command, Command::Purge { .. }), "{command:?}"),
            Ok(Step::Unchanged) | Err(_) => {}
        }
    }

    #[test]
    fn the_expected_revision_is_checked_before_all_else_and_changes_nothing_else(
        call in any_call(),
        command in any_command(),
    ) {
        let result = machine::apply(Some(&call), &command, None);
        match command.expected_revision() {
            Some(expected) if expected != call.revision => {
                let refused = Rejection::RevisionMismatch { uid: UID, current_revision: call.revision };
                prop_assert_eq!(result, Err(refused));
            }
            _ => prop_assert_eq!(result, machine::apply(Some(&call), &unconditional(&command), None)),
        }
    }

    #[test]
    fn a_patch_keeps_clears_and_sets_field_by_field(before in any_attributes(), patch in any_patch()) {
        fn edited<T>(edit: Edit<T>, before: Option<T>) -> Option<T> {
            match edit {
                Edit::Keep => before,
                Edit::Clear => None,
                Edit::Set(value) => Some(value),
            }
        }
        let mut after = before.clone();
        patch.apply(&mut after);
        prop_assert_eq!(after, Attributes {
            duration: edited(patch.duration, before.duration),
            status: patch.status.unwrap_or(before.status),
            direction: patch.direction.unwrap_or(before.direction),
            staff_uid: edited(patch.staff_uid, before.staff_uid),
            client_uid: edited(patch.client_uid, before.client_uid),
            from_number: edited(patch.from_number, before.from_number),
            to_number: edited(patch.to_number, before.to_number),
            recording_url: edited(patch.recording_url, before.recording_url),
            call_summary: edited(patch.call_summary, before.call_summary),
            external_app_url: edited(patch.external_app_url, before.external_app_url),
            handled_by_staff_uid: edited(patch.handled_by_staff_uid, before.handled_by_staff_uid),
            handled_at: edited(patch.handled_at, before.handled_at),
        });
    }

    #[test]
    fn an_update_comes_to_nothing_exactly_when_it_changes_nothing(
        call in any_call(),
        patch in any_patch(),
    ) {
        let mut attributes = call.attributes.clone();
        patch.apply(&mut attributes);
        let command = Command::Update {
            uid: UID,
            patch: patch.clone(),
            expected_revision: None,
            when_missing: WhenMissing::Refuse,
        };
        let result = machine::apply(Some(&call), &command, None);
        if call.deleted_at.is_some() {
            prop_assert_eq!(result, Err(Rejection::Deleted { uid: UID }));
        } else if attributes == call.attributes {
            prop_assert_eq!(result, Ok(Step::Unchanged));
        } else if let Ok(step) = result {
            let Step::Change(ChangeKind::Updated, after) = step else {
                return Err(TestCaseError::fail(format!("{step:?}")));
            };
            prop_assert_eq!(&after.attributes, &attributes.into());
            for field in after.changed_fields(&call).iter().filter(|field| field.is_writable()) {
                prop_assert!(names(&patch, field), "{} was not named", field.name());
            }
        } else {
            let status = call.attributes.status.clone();
            prop_assert!(attributes.status.is_open() && !status.is_open());
            prop_assert_eq!(result, Err(Rejection::IllegalStatusChange { uid: UID, status }));
        }
    }

    #[test]
    fn a_command_repeated_at_once_changes_nothing_more(call in any_call(), command in any_command()) {
        let command = unconditional(&command);
        let Ok(Step::Change(kind, after)) = machine::apply(Some(&call), &command, None) else {
            return Ok(());
        };
        let after = after.commit(7, Timestamp::clamped(0));
        match machine::apply(Some(&after), &command, None) {
            Ok(Step::Change(..)) => prop_assert!(false, "{kind:?} twice"),
            Ok(Step::Absent | Step::Purge) => prop_assert!(false, "there is a call"),
            Ok(Step::Unchanged) => {}
            Err(rejection) => prop_assert!(
                matches!(rejection, Rejection::Deleted { .. } | Rejection::NotDeleted { .. }),
                "{rejection:?}"
            ),
        }
    }

    #[test]
    fn of_no_call_comes_a_call_nothing_or_a_refusal(command in any_command()) {
        match machine::apply(None, &command, None) {
            Ok(Step::Change(kind, after)) => {
                prop_assert_eq!(kind, ChangeKind::Created);
                prop_assert_eq!((after.uid, after.deleted_at), (UID, None));
                prop_assert_eq!(after.updated_at, PendingTime::AtCommit);
            }
            Ok(Step::Unchanged | Step::Purge) => prop_assert!(false, "there is nothing"),
            Ok(Step::Absent) => {
                let content = matches!(command, Command::Delete { allow_missing: true, .. });
                prop_assert!(content, "{command:?}");
            }
            Err(_) => prop_assert!(!matches!(command, Command::Create(_))),
        }
    }

    #[test]
    fn the_changed_fields_are_those_that_differ(before in any_call(), other in any_attributes()) {
        for field in Field::WRITABLE {
            let mut after = before.clone();
            take_over(&mut after.attributes, field, other.clone());
            let differing = (after != before).then_some(field);
            let changed: Vec<_> = after.changed_fields(&before).iter().collect();
            prop_assert_eq!(changed, Vec::from_iter(differing), "{}", field.name());
        }
    }

    #[test]
    fn a_commit_decides_what_was_open_and_keeps_what_was_known(
        created_at in any_command_time(),
        updated_at in any_command_time(),
        deleted_at in option::of(any_command_time()),
        handled_at in option::of(any_command_time()),
        attributes in any_attributes(),
        committed_at in any_time(),
        before in any_call(),
    ) {
        let resolve = |time: PendingTime| match time {
            PendingTime::Known(time) => time,
            PendingTime::AtCommit => committed_at,
        };
        let pending = PendingCall {
            uid: UID,
            created_at,
            updated_at,
            deleted_at,
            attributes: attributes.clone().with_handled_at(handled_at),
        };
        let changed = pending.changed_fields(&before);
        let call = pending.commit(7, committed_at);
        prop_assert_eq!(&call, &Call {
            uid: UID,
            created_at: resolve(created_at),
            updated_at: resolve(updated_at),
            deleted_at: deleted_at.map(resolve),
            attributes: attributes.with_handled_at(handled_at.map(resolve)),
            revision: 7,
        });
        // What the commit changes is known before it; only a time that happens to
        // come out as it was may be named in vain.
        for field in Field::ALL {
            let is_open = match field {
                Field::CreatedAt => created_at == PendingTime::AtCommit,
                Field::UpdatedAt => updated_at == PendingTime::AtCommit,
                Field::DeletedAt => deleted_at == Some(PendingTime::AtCommit),
                Field::HandledAt => handled_at == Some(PendingTime::AtCommit),
                _ => false,
            };
            let differs = call.changed_fields(&before).contains(field);
            prop_assert_eq!(changed.contains(field), differs || is_open, "{}", field.name());
        }
    }

    #[test]
    fn a_life_of_many_commands_keeps_its_identity_and_never_opens_again(
        draft in any_draft(),
        commands in vec(any_command(), 1..40),
    ) {
        let mut call = machine::create(&draft, None).expect("nobody is narrowed").commit(1, Timestamp::clamped(1));
        let (created_at, mut was_closed) = (call.created_at, false);
        for (revision, command) in (2..).zip(&commands) {
            let before = call.clone();
            if let Ok(Step::Change(_, after)) = machine::apply(Some(&call), command, None) {
                call = after.commit(revision, Timestamp::clamped(revision));
                prop_assert_eq!(call.updated_at, Timestamp::clamped(revision));
                prop_assert!(call.revision > before.revision);
            }
            was_closed |= !call.attributes.status.is_open();
            prop_assert_eq!(was_closed, !call.attributes.status.is_open());
            prop_assert_eq!((call.uid, call.created_at), (UID, created_at));
        }
    }

    #[test]
    fn of_a_purged_call_comes_nothing_but_refusals(command in any_command()) {
        match machine::apply(CallState::Purged, &command, None) {
            Ok(Step::Absent) => {
                let content = matches!(command, Command::Delete { allow_missing: true, .. });
                prop_assert!(content, "{command:?}");
            }
            Ok(step) => prop_assert!(false, "{step:?}"),
            Err(rejection) => prop_assert!(
                matches!(rejection, Rejection::Purged { .. } | Rejection::UidPurged { .. }),
                "{rejection:?}"
            ),
        }
    }
}
