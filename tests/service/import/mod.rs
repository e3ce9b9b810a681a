//! Records come in as they are, each by itself, and an import can be repeated.
//!
//! - `large`: the statistics after an import of many records
//! - `order`: records of one call, and other writes beside an import
//! - `refusals`: records and messages that are refused

mod large;
mod order;
mod refusals;

use prost_types::Timestamp;
use tonic::Status;
use voicecall::proto::{
    ImportConflictPolicy as Policy, ImportOutcome as Outcome, ImportVoiceCallsRequest,
    ImportVoiceCallsResponse, VoiceCall, VoiceCallStatus,
    import_voice_calls_response::Result as Answer,
};

use crate::support::{self, Client, Server, create, get, inbound, micros, reference};

/// Sends these messages and collects the answers, by their sequence.
async fn send(
    client: &mut Client,
    messages: Vec<ImportVoiceCallsRequest>,
) -> Result<Vec<ImportVoiceCallsResponse>, Status> {
    let (mut answers, ended) = support::import::send(client, messages).await;
    answers.sort_by_key(|answer| answer.sequence);
    ended.map(|()| answers)
}

/// Imports calls, the first of which is number 0.
async fn import(
    client: &mut Client,
    policy: Policy,
    calls: impl IntoIterator<Item = VoiceCall>,
) -> Vec<ImportVoiceCallsResponse> {
    let (mut answers, ended) = support::import::import(client, policy, calls).await;
    ended.expect("a good import");
    answers.sort_by_key(|answer| answer.sequence);
    answers
}

fn outcomes(answers: &[ImportVoiceCallsResponse]) -> Vec<Outcome> {
    let outcome = |answer: &ImportVoiceCallsResponse| match &answer.result {
        Some(Answer::Success(success)) => success.outcome(),
        other => panic!("refused: {other:?}"),
    };
    answers.iter().map(outcome).collect()
}

fn time(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

/// The reference example as another system has it, updated at this time.
fn updated(seconds: i64, summary: &str) -> VoiceCall {
    VoiceCall {
        updated_at: time(seconds),
        call_summary: Some(summary.into()),
        ..reference()
    }
}

#[tokio::test]
async fn the_reference_example_comes_in_value_for_value() {
    let server = Server::start().await;
    let mut client = server.client();
    let example = VoiceCall {
        updated_at: time(1_626_789_600),
        ..reference()
    };
    let answers = import(&mut client, Policy::Unspecified, [example.clone()]).await;
    assert_eq!(outcomes(&answers), [Outcome::Created]);
    assert_eq!(answers[0].uid, example.uid);
    let read = get(&mut client, &example.uid).await.expect("it is there");
    assert_eq!(
        read,
        VoiceCall {
            revision: 1,
            ..example
        }
    );
}

#[tokio::test]
async fn what_exists_is_replaced_or_kept_as_the_policy_says() {
    let server = Server::start().await;
    let mut client = server.client();
    let stored = updated(1_700_000_000, "stored");
    import(&mut client, Policy::Replace, [stored.clone()]).await;
    for (policy, call, outcome) in [
        (Policy::ReplaceIfNewer, stored.clone(), Outcome::Unchanged),
        (Policy::Replace, stored.clone(), Outcome::Unchanged),
        (Policy::Skip, stored.clone(), Outcome::Unchanged),
        (
            Policy::ReplaceIfNewer,
            updated(1_699_999_999, "older"),
            Outcome::Skipped,
        ),
        (
            Policy::ReplaceIfNewer,
            updated(1_700_000_000, "as old"),
            Outcome::Skipped,
        ),
        (
            Policy::Skip,
            updated(1_700_000_001, "newer"),
            Outcome::Skipped,
        ),
        (
            Policy::ReplaceIfNewer,
            updated(1_700_000_001, "newer"),
            Outcome::Replaced,
        ),
        (
            Policy::Unspecified,
            updated(1_700_000_002, "newest"),
            Outcome::Replaced,
        ),
        (
            Policy::Replace,
            updated(1_600_000_000, "oldest"),
            Outcome::Replaced,
        ),
        (Policy::Replace, stored, Outcome::Replaced),
    ] {
        let before = get(&mut client, &call.uid).await.expect("it is there");
        let answers = import(&mut client, policy, [call.clone()]).await;
        assert_eq!(outcomes(&answers), [outcome], "{policy:?} {call:?}");
        let after = get(&mut client, &call.uid).await.expect("it is there");
        if outcome == Outcome::Replaced {
            assert_eq!(after.revision, before.revision + 1);
            assert_eq!(
                VoiceCall {
                    revision: 0,
                    ..after
                },
                call
            );
        } else {
            assert_eq!(after, before);
        }
    }
}

#[tokio::test]
async fn no_rule_of_status_or_of_deletion_applies() {
    let server = Server::start().await;
    let mut client = server.client();
    let closed = create(&mut client, reference()).await;
    let deleted = VoiceCall {
        status: VoiceCallStatus::IncomingCall.into(),
        created_at: time(1_500_000_000),
        updated_at: time(1_600_000_000),
        deleted_at: time(1_550_000_000),
        ..closed.clone()
    };
    let restored = VoiceCall {
        deleted_at: None,
        ..deleted.clone()
    };
    for call in [deleted, restored] {
        let answers = import(&mut client, Policy::Replace, [call.clone()]).await;
        assert_eq!(outcomes(&answers), [Outcome::Replaced]);
        let read = get(&mut client, &call.uid).await.expect("it is there");
        assert_eq!(
            VoiceCall {
                revision: 0,
                ..read
            },
            VoiceCall {
                revision: 0,
                ..call
            }
        );
    }
}

#[tokio::test]
async fn absent_times_are_the_other_ones_or_now() {
    let server = Server::start().await;
    let mut client = server.client();
    let uids: Vec<_> = (0..3).map(|_| uuid::Uuid::new_v4().to_string()).collect();
    let call = |place: usize, created_at, updated_at| VoiceCall {
        uid: uids[place].clone(),
        created_at,
        updated_at,
        ..inbound()
    };
    let calls = [
        call(0, time(1_600_000_000), None),
        call(1, None, time(1_600_000_001)),
        call(2, None, None),
    ];
    import(&mut client, Policy::ReplaceIfNewer, calls.clone()).await;
    let mut read = Vec::new();
    for uid in &uids {
        read.push(get(&mut client, uid).await.expect("it is there"));
    }
    assert_eq!(read[0].updated_at, time(1_600_000_000));
    assert_eq!(read[1].created_at, time(1_600_000_001));
    assert_eq!(read[2].created_at, read[2].updated_at);
    assert!(micros(read[2].updated_at) > micros(time(1_700_000_000)));
    for status in [0, VoiceCallStatus::IncomingCall.into()] {
        let again = calls.clone().map(|call| VoiceCall { status, ..call });
        let answers = import(&mut client, Policy::ReplaceIfNewer, again).await;
        assert_eq!(outcomes(&answers), [Outcome::Unchanged; 3]);
    }
    // One that says nothing of its times keeps those of the call that it can keep.
    let changed = VoiceCall {
        duration: Some(5),
        ..calls[2].clone()
    };
    let answers = import(&mut client, Policy::ReplaceIfNewer, [changed]).await;
    assert_eq!(outcomes(&answers), [Outcome::Replaced]);
    let after = get(&mut client, &uids[2]).await.expect("it is there");
    assert_eq!(after.created_at, read[2].created_at);
    assert!(micros(after.updated_at) > micros(read[2].updated_at));
}
