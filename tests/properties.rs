//! Properties of the pure parts, for values at random: the state machine, page
//! tokens, times and texts.

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*, sample::select};
use uuid::Uuid;
use voicecall::{
    api::{
        page_token::{self, ListKey},
        proto::VoiceCallFilter,
    },
    domain::{
        Attributes, Call, ChangeKind, Command, Direction, Draft, Field, FieldSet, Identifier,
        Patch, PhoneNumber, Seconds, Status, Summary, Timestamp, Url,
        command::WhenMissing,
        list::{Order, OrderField, PageKey},
        machine::{self, Rejection, Step},
    },
};

const UID: Uuid = Uuid::from_u128(0xd290_f1ee_6c54_4b01_90e6_d701_748f_0851);
const REVISIONS: std::ops::Range<i64> = 1..6;

fn any_time() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.micros()..=Timestamp::MAX.micros())
        .prop_map(|micros| Timestamp::from_micros(micros).expect("in range"))
}

/// A time of a command: one that is given, or that of the commit.
fn any_command_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![any_time(), Just(Timestamp::AT_COMMIT)]
}

fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![
        4 => select(&Status::ALL[..]),
        1 => Just(Status::from_word("voicemail")),
    ]
}

fn any_identifier() -> impl Strategy<Value = Identifier> {
    select(&["ann", "bob", "5ya4gbwm2c3qic8"][..])
        .prop_map(|text| Identifier::new(text.into()).expect("valid"))
}

/// New values for fields at random; as a whole they are attributes.
#[expect(
    clippy::too_many_lines,
    reason = "a line or two for each field of a call"
)]
fn any_patch() -> impl Strategy<Value = Patch> {
    let number = || {
        let texts = select(&["183466347342", "anonymous"][..]);
        option::of(texts.prop_map(|text| PhoneNumber::new(text.into()).expect("valid")))
    };
    let url = || {
        let texts = select(&["https://example.com/a", "http://example.com/b"][..]);
        option::of(texts.prop_map(|text| Url::new(text.into()).expect("valid")))
    };
    let summaries = select(&["a", "b\n"][..]);
    let summary = summaries.prop_map(|text| Summary::new(text.into()).expect("valid"));
    let people = (
        option::of(any_identifier()),
        option::of(any_identifier()),
        option::of(any_identifier()),
    );
    (
        (0..=3).prop_map(Seconds::new),
        any_status(),
        select(&Direction::ALL[..]),
        people,
        (number(), number()),
        (url(), url()),
        option::of(summary),
        option::of(any_time()),
        vec(select(&Field::WRITABLE[..]), 0..6),
        any::<bool>(),
    )
        .prop_map(
            |(
                duration,
                status,
                direction,
                people,
                numbers,
                urls,
                call_summary,
                handled_at,
                fields,
                all,
            )| {
                let fields: FieldSet = if all {
                    Field::WRITABLE.into_iter().collect()
                } else {
                    fields.into_iter().collect()
                };
                Patch {
                    fields,
                    duration,
                    status: Some(status),
                    direction: Some(direction),
                    staff_uid: people.0,
                    client_uid: people.1,
                    handled_by_staff_uid: people.2,
                    from_number: numbers.0,
                    to_number: numbers.1,
                    recording_url: urls.0,
                    external_app_url: urls.1,
                    call_summary,
                    handled_at,
                }
            },
        )
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    any_patch().prop_map(|patch| patch.into_attributes().expect("it has a direction"))
}

fn any_draft() -> impl Strategy<Value = Draft> {
    (any_command_time(), any_attributes()).prop_map(|(created_at, attributes)| Draft {
        uid: UID,
        created_at,
        attributes,
    })
}

fn any_call() -> impl Strategy<Value = Call> {
    (
        any_time(),
        any_time(),
        option::of(any_time()),
        any_attributes(),
        REVISIONS,
    )
        .prop_map(
            |(created_at, updated_at, deleted_at, attributes, revision)| Call {
                uid: UID,
                created_at,
                updated_at,
                deleted_at,
                attributes,
                revision,
            },
        )
}

fn any_command() -> impl Strategy<Value = Command> {
    let expected = || option::weighted(0.3, REVISIONS);
    let when_missing = prop_oneof![
        Just(WhenMissing::Refuse),
        Just(WhenMissing::RequireDirection),
        any_draft().prop_map(|draft| WhenMissing::Create(Box::new(draft))),
    ];
    prop_oneof![
        any_draft().prop_map(Command::Create),
        (any_patch(), expected(), when_missing).prop_map(
            |(patch, expected_revision, when_missing)| {
                Command::Update {
                    uid: UID,
                    patch,
                    expected_revision,
                    when_missing,
                }
            }
        ),
        (any_identifier(), any_command_time(), expected()).prop_map(
            |(handled_by_staff_uid, handled_at, expected_revision)| Command::Handle {
                uid: UID,
                handled_by_staff_uid,
                handled_at,
                expected_revision,
            }
        ),
        (expected(), any::<bool>()).prop_map(|(expected_revision, allow_missing)| {
            Command::Delete {
                uid: UID,
                expected_revision,
                allow_missing,
            }
        }),
        expected().prop_map(|expected_revision| Command::Undelete {
            uid: UID,
            expected_revision,
        }),
    ]
}

/// The same command without a check of the revision.
fn unconditional(command: &Command) -> Command {
    let mut command = command.clone();
    match &mut command {
        Command::Create(_) => {}
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
fn check_change(before: &Call, kind: ChangeKind, after: &Call) -> Result<(), TestCaseError> {
    prop_assert_eq!(after.uid, before.uid);
    prop_assert_eq!(after.created_at, before.created_at);
    prop_assert_eq!(after.updated_at, Timestamp::AT_COMMIT);
    prop_assert_eq!(after.revision, 0);
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
            prop_assert_eq!(&after.attributes, &before.attributes);
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
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_change_keeps_the_rules_of_life(call in any_call(), command in any_command()) {
        match machine::apply(Some(&call), &command) {
            Ok(Step::Change(kind, after)) => check_change(&call, kind, &after)?,
            Ok(Step::Absent) => prop_assert!(false, "there is a call"),
            Ok(Step::Unchanged) | Err(_) => {}
        }
    }

    #[test]
    fn the_expected_revision_is_checked_before_all_else_and_changes_nothing_else(
        call in any_call(),
        command in any_command(),
    ) {
        let result = machine::apply(Some(&call), &command);
        match command.expected_revision() {
            Some(expected) if expected != call.revision => {
                let refused = Rejection::RevisionMismatch { uid: UID, current_revision: call.revision };
                prop_assert_eq!(result, Err(refused));
            }
            _ => prop_assert_eq!(result, machine::apply(Some(&call), &unconditional(&command))),
        }
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
        let result = machine::apply(Some(&call), &command);
        if call.deleted_at.is_some() {
            prop_assert_eq!(result, Err(Rejection::Deleted { uid: UID }));
        } else if attributes == call.attributes {
            prop_assert_eq!(result, Ok(Step::Unchanged));
        } else if let Ok(step) = result {
            let Step::Change(ChangeKind::Updated, after) = step else {
                return Err(TestCaseError::fail(format!("{step:?}")));
            };
            prop_assert_eq!(&after.attributes, &attributes);
            for field in after.changed_fields(&call).iter().filter(|field| field.is_writable()) {
                prop_assert!(patch.fields.contains(field), "{} was not named", field.name());
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
        let Ok(Step::Change(kind, mut after)) = machine::apply(Some(&call), &command) else {
            return Ok(());
        };
        Arc::make_mut(&mut after).commit(7, Timestamp::clamped(0));
        match machine::apply(Some(&after), &command) {
            Ok(Step::Change(..)) => prop_assert!(false, "{kind:?} twice"),
            Ok(Step::Absent) => prop_assert!(false, "there is a call"),
            Ok(Step::Unchanged) => {}
            Err(rejection) => prop_assert!(
                matches!(rejection, Rejection::Deleted { .. } | Rejection::NotDeleted { .. }),
                "{rejection:?}"
            ),
        }
    }

    #[test]
    fn of_no_call_comes_a_call_nothing_or_a_refusal(command in any_command()) {
        match machine::apply(None, &command) {
            Ok(Step::Change(kind, mut after)) => {
                prop_assert_eq!(kind, ChangeKind::Created);
                prop_assert_eq!((after.uid, after.deleted_at, after.revision), (UID, None, 0));
                let committed_at = Timestamp::clamped(1_000_000);
                let call = Arc::make_mut(&mut after);
                call.commit(3, committed_at);
                prop_assert_eq!((call.revision, call.updated_at), (3, committed_at));
                prop_assert!(call.created_at != Timestamp::AT_COMMIT);
                prop_assert!(call.attributes.handled_at != Some(Timestamp::AT_COMMIT));
            }
            Ok(Step::Unchanged) => prop_assert!(false, "there is nothing to be unchanged"),
            Ok(Step::Absent) => {
                let content = matches!(command, Command::Delete { allow_missing: true, .. });
                prop_assert!(content, "{command:?}");
            }
            Err(_) => prop_assert!(!matches!(command, Command::Create(_))),
        }
    }

    #[test]
    fn a_life_of_many_commands_keeps_its_identity_and_never_opens_again(
        draft in any_draft(),
        commands in vec(any_command(), 1..40),
    ) {
        let mut call = machine::create(&draft);
        call.commit(1, Timestamp::clamped(1));
        let (created_at, mut was_closed) = (call.created_at, false);
        for (revision, command) in (2..).zip(&commands) {
            let before = call.clone();
            if let Ok(Step::Change(_, after)) = machine::apply(Some(&call), command) {
                call = Arc::unwrap_or_clone(after);
                call.commit(revision, Timestamp::clamped(revision));
                prop_assert_eq!(call.updated_at, Timestamp::clamped(revision));
                prop_assert!(call.revision > before.revision);
            }
            was_closed |= !call.attributes.status.is_open();
            prop_assert_eq!(was_closed, !call.attributes.status.is_open());
            prop_assert_eq!((call.uid, call.created_at), (UID, created_at));
        }
    }

    #[test]
    fn a_token_leads_back_to_its_place(key in any_key(), list in any_list()) {
        let token = page_token::encode(list, key);
        prop_assert_eq!(page_token::decode(list, &token).ok(), Some(key));
        let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        prop_assert!(token.chars().all(is_safe), "{}", token);
    }

    #[test]
    fn a_token_of_another_list_is_refused(key in any_key(), list in any_list(), other in any_list()) {
        let token = page_token::encode(list, key);
        prop_assert_eq!(page_token::decode(other, &token).is_ok(), list == other);
    }

    #[test]
    fn a_torn_or_mistyped_token_is_refused(key in any_key(), list in any_list(), other in any::<char>()) {
        let token = page_token::encode(list, key);
        for len in 0..token.len() {
            prop_assert!(page_token::decode(list, &token[..len]).is_err());
            prop_assert!(page_token::decode(list, &token[len + 1..]).is_err());
        }
        for place in 0..token.len() {
            let typo = if other.is_ascii() { other } else { 'A' };
            for typo in [typo, 'A', '_', '=', ' ', 'ü'] {
                let mut changed: Vec<char> = token.chars().collect();
                if changed[place] == typo {
                    continue;
                }
                changed[place] = typo;
                let changed: String = changed.into_iter().collect();
                prop_assert!(page_token::decode(list, &changed).is_err(), "{}", changed);
            }
        }
    }

    #[test]
    fn a_text_that_is_no_token_is_refused(list in any_list(), text in ".{0,80}") {
        prop_assert!(page_token::decode(list, &text).is_err());
    }

    #[test]
    fn times_come_back_and_keep_their_order(a in any_time(), b in any_time(), finer in 0..1000) {
        let (seconds, nanos) = a.parts();
        prop_assert_eq!(Timestamp::from_micros(a.micros()), Ok(a));
        prop_assert_eq!(Timestamp::from_parts(seconds, nanos), Ok(a));
        prop_assert_eq!(Timestamp::from_parts(seconds, nanos + finer), Ok(a));
        prop_assert_eq!(a.cmp(&b), a.parts().cmp(&b.parts()));
        prop_assert!(a < Timestamp::AT_COMMIT);
    }

    #[test]
    fn times_are_taken_in_range_only(seconds: i64, nanos: i32) {
        let range = Timestamp::MIN.parts().0..=Timestamp::MAX.parts().0;
        let good = range.contains(&seconds) && (0..1_000_000_000).contains(&nanos);
        prop_assert_eq!(Timestamp::from_parts(seconds, nanos).is_ok(), good);
    }

    #[test]
    fn names_are_taken_as_they_are_or_not_at_all(text in any_text()) {
        let good = (1..=64).contains(&text.chars().count()) && !text.contains(char::is_control);
        let name = Identifier::new(text.clone());
        prop_assert_eq!(name.is_ok(), good);
        prop_assert_eq!(PhoneNumber::new(text.clone()).is_ok(), good);
        if let Ok(name) = name {
            prop_assert_eq!(name.as_str(), text);
        }
    }

    #[test]
    fn summaries_are_taken_as_they_are_or_not_at_all(text in any_text()) {
        let control = |c: char| c.is_control() && c != '\n' && c != '\t';
        let summary = Summary::new(text.clone());
        prop_assert_eq!(summary.is_ok(), !text.is_empty() && !text.contains(control));
        if let Ok(summary) = summary {
            prop_assert_eq!(summary.as_str(), text);
        }
    }

    #[test]
    fn urls_of_every_shape_are_taken_as_they_are(
        url in "(https?|HTTPS?)://([a-z0-9]{1,8}@)?[a-z0-9-]{1,20}(\\.[a-z]{2,5}){0,2}(:[0-9]{1,4})?(/[!-~]{0,30})?"
    ) {
        let taken = Url::new(url.clone());
        prop_assert_eq!(taken.map(|taken| taken.as_str().to_owned()), Ok(url));
    }

    #[test]
    fn no_text_that_is_taken_for_a_url_could_be_mistaken(text in "(https?:)?/{0,3}\\PC{0,20}") {
        if let Ok(url) = Url::new(text) {
            let lower = url.as_str().to_lowercase();
            prop_assert!(lower.starts_with("http://") || lower.starts_with("https://"));
            prop_assert!(!lower.contains(char::is_whitespace) && !lower.contains(char::is_control));
        }
    }
}

/// Texts around the limits, with characters that matter.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,70}",
        "[a-zü\u{0}-\u{20}\u{7f}-\u{a0}😀]{0,5}",
        "[aü😀]{60,68}",
    ]
}

fn any_key() -> impl Strategy<Value = PageKey> {
    (any_time(), any::<u128>()).prop_map(|(time, uid)| PageKey {
        time,
        uid: Uuid::from_u128(uid),
    })
}

fn any_list() -> impl Strategy<Value = ListKey> {
    let orders = (any::<bool>(), any::<bool>()).prop_map(|(by_update, descending)| Order {
        field: if by_update {
            OrderField::UpdatedAt
        } else {
            OrderField::CreatedAt
        },
        descending,
    });
    let filters = (any::<bool>(), vec("[ab]", 0..3), option::of(0..3)).prop_map(
        |(show_deleted, staff_uids, min_duration)| VoiceCallFilter {
            show_deleted,
            staff_uids,
            min_duration,
            ..VoiceCallFilter::default()
        },
    );
    (option::of(filters), orders).prop_map(|(filter, order)| ListKey::new(filter.as_ref(), order))
}
