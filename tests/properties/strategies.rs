//! Calls, drafts and commands at random.

use proptest::{option, prelude::*, sample::select};
use uuid::Uuid;
use voicecall::domain::{
    Attributes, Call, Command, Direction, Draft, Edit, Identifier, Patch, PendingTime, PhoneNumber,
    Seconds, Status, Summary, Url, command::WhenMissing,
};

use crate::any_time;

pub(crate) const UID: Uuid = Uuid::from_u128(0xd290_f1ee_6c54_4b01_90e6_d701_748f_0851);
const REVISIONS: std::ops::Range<i64> = 1..6;

/// A time of a command: one that is given, or that of the commit.
pub(crate) fn any_command_time() -> impl Strategy<Value = PendingTime> {
    prop_oneof![
        any_time().prop_map(PendingTime::Known),
        Just(PendingTime::AtCommit)
    ]
}

fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![
        4 => select(&Status::ALL[..]),
        1 => Just(Status::from_word("voicemail")),
    ]
}

pub(crate) fn any_identifier() -> impl Strategy<Value = Identifier> {
    select(&["ann", "bob", "5ya4gbwm2c3qic8"][..])
        .prop_map(|text| Identifier::new(text.into()).expect("valid"))
}

fn any_number() -> impl Strategy<Value = PhoneNumber> {
    select(&["183466347342", "anonymous"][..])
        .prop_map(|text| PhoneNumber::new(text.into()).expect("valid"))
}

fn any_url() -> impl Strategy<Value = Url> {
    select(&["https://example.com/a", "http://example.com/b"][..])
        .prop_map(|text| Url::new(text.into()).expect("valid"))
}

fn any_summary() -> impl Strategy<Value = Summary> {
    select(&["a", "b\n"][..]).prop_map(|text| Summary::new(text.into()).expect("valid"))
}

fn any_seconds() -> impl Strategy<Value = Seconds> {
    (0..=3).prop_map(|seconds| Seconds::new(seconds).expect("not negative"))
}

/// Keeps a field as often as not.
fn any_edit<T>(values: impl Strategy<Value = T>) -> impl Strategy<Value = Edit<T>>
where
    T: Clone + std::fmt::Debug,
{
    prop_oneof![
        2 => Just(Edit::Keep),
        1 => Just(Edit::Clear),
        1 => values.prop_map(Edit::Set),
    ]
}

pub(crate) fn any_patch() -> impl Strategy<Value = Patch> {
    let people = || any_edit(any_identifier());
    let people = (people(), people(), people());
    let numbers = (any_edit(any_number()), any_edit(any_number()));
    let urls = (any_edit(any_url()), any_edit(any_url()));
    let words = (
        option::of(any_status()),
        option::of(select(&Direction::ALL[..])),
    );
    (
        any_edit(any_seconds()),
        words,
        people,
        numbers,
        urls,
        any_edit(any_summary()),
        any_edit(any_time()),
    )
        .prop_map(
            |(duration, words, people, numbers, urls, call_summary, handled_at)| Patch {
                duration,
                status: words.0,
                direction: words.1,
                staff_uid: people.0,
                client_uid: people.1,
                handled_by_staff_uid: people.2,
                from_number: numbers.0,
                to_number: numbers.1,
                recording_url: urls.0,
                external_app_url: urls.1,
                call_summary,
                handled_at,
            },
        )
}

pub(crate) fn any_attributes() -> impl Strategy<Value = Attributes> {
    let person = || option::of(any_identifier());
    (
        (option::of(any_seconds()), any_status()),
        select(&Direction::ALL[..]),
        (person(), person(), person()),
        (option::of(any_number()), option::of(any_number())),
        (option::of(any_url()), option::of(any_url())),
        option::of(any_summary()),
        option::of(any_time()),
    )
        .prop_map(
            |(begun, direction, people, numbers, urls, call_summary, handled_at)| Attributes {
                duration: begun.0,
                status: begun.1,
                direction,
                staff_uid: people.0,
                client_uid: people.1,
                handled_by_staff_uid: people.2,
                from_number: numbers.0,
                to_number: numbers.1,
                recording_url: urls.0,
                external_app_url: urls.1,
                call_summary,
                handled_at,
            },
        )
}

pub(crate) fn any_draft() -> impl Strategy<Value = Draft> {
    (any_command_time(), any_attributes()).prop_map(|(created_at, attributes)| Draft {
        uid: UID,
        created_at,
        attributes,
    })
}

pub(crate) fn any_call() -> impl Strategy<Value = Call> {
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

pub(crate) fn any_command() -> impl Strategy<Value = Command> {
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
