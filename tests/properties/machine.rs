//! The state machine: commands at random on calls at random.

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*, sample::select};
use uuid::Uuid;
use voicecall::domain::{
    Attributes, Call, ChangeKind, Command, Direction, Draft, Field, FieldSet, Identifier, Patch,
    PhoneNumber, Seconds, Status, Summary, Timestamp, Url,
    command::WhenMissing,
    machine::{self, CallState, Rejection, Step},
};

use crate::{any_time, config};

const UID: Uuid = Uuid::from_u128(0xd290_f1ee_6c54_4b01_90e6_d701_748f_0851);
const REVISIONS: std::ops::Range<i64> = 1..6;

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

fn any_number() -> impl Strategy<Value = Option<PhoneNumber>> {
    let texts = select(&["183466347342", "anonymous"][..]);
    option::of(texts.prop_map(|text| PhoneNumber::new(text.into()).expect("valid")))
}

fn any_url() -> impl Strategy<Value = Option<Url>> {
    let texts = select(&["https://example.com/a", "http://example.com/b"][..]);
    option::of(texts.prop_map(|text| Url::new(text.into()).expect("valid")))
}

/// New values for fields at random; as a whole they are attributes.
fn any_patch() -> impl Strategy<Value = Patch> {
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
        (any_number(), any_number()),
        (any_url(), any_url()),
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
        Just(Command::Purge { uid: UID }),
    ]
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
    #![proptest_config(config())]

    #[test]
    fn a_change_keeps_the_rules_of_life(call in any_call(), command in any_command()) {
        match machine::apply(Some(&call), &command) {
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
        match machine::apply(Some(&*after), &command) {
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
            Ok(Step::Unchanged | Step::Purge) => prop_assert!(false, "there is nothing"),
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
    fn of_a_purged_call_comes_nothing_but_refusals(command in any_command()) {
        match machine::apply(CallState::Purged, &command) {
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
