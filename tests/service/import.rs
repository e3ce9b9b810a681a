//! Records come in as they are, each by itself, and an import can be repeated.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use prost_types::Timestamp;
use tokio::{sync::mpsc, time::timeout};
use tokio_postgres::Client as Database;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};
use voicecall::proto::{
    self, ErrorReason, ImportConflictPolicy as Policy, ImportOutcome as Outcome, ImportRecord,
    ImportSettings, ImportVoiceCallsRequest, ImportVoiceCallsResponse, VoiceCall, VoiceCallStatus,
    import_voice_calls_request::Message, import_voice_calls_response::Result as Answer,
};

use crate::support::{
    Client, Server, assert_refused, create, delete, eventually, get, inbound,
    ledger::check_ledger,
    micros,
    postgres::{connect, running},
    reference, request_id, update,
};

fn settings(policy: Policy) -> ImportVoiceCallsRequest {
    ImportVoiceCallsRequest {
        message: Some(Message::Settings(ImportSettings {
            conflict_policy: policy.into(),
        })),
    }
}

fn record(sequence: i64, voice_call: VoiceCall) -> ImportVoiceCallsRequest {
    ImportVoiceCallsRequest {
        message: Some(Message::Record(ImportRecord {
            sequence,
            voice_call: Some(voice_call),
        })),
    }
}

/// Sends these messages and collects the answers, by their sequence.
async fn send(
    client: &mut Client,
    messages: Vec<ImportVoiceCallsRequest>,
) -> Result<Vec<ImportVoiceCallsResponse>, Status> {
    let answers = client.import_voice_calls(stream::iter(messages)).await?;
    let answers = answers.into_inner().collect::<Vec<_>>().await;
    let mut answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    answers.sort_by_key(|answer| answer.sequence);
    Ok(answers)
}

/// Imports calls, the first of which is number 0.
async fn import(
    client: &mut Client,
    policy: Policy,
    calls: impl IntoIterator<Item = VoiceCall>,
) -> Vec<ImportVoiceCallsResponse> {
    let records = (0..)
        .zip(calls)
        .map(|(sequence, call)| record(sequence, call));
    let messages = std::iter::once(settings(policy)).chain(records).collect();
    send(client, messages).await.expect("a good import")
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

/// A server and an import after which the table is analyzed, but not yet: another session
/// holds a lock that ANALYZE waits for, and writes do not.
async fn start_large_import(
    last: Option<ImportVoiceCallsRequest>,
) -> (Server, Database, AbortOnDropHandle<Result<usize, Status>>) {
    const RECORDS: i64 = 11_000;
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    let lock = "BEGIN; LOCK TABLE voice_calls IN SHARE UPDATE EXCLUSIVE MODE";
    database.batch_execute(lock).await.expect("it is free");
    let records = (0..RECORDS).map(|sequence| {
        let call = VoiceCall {
            uid: request_id(),
            ..inbound()
        };
        record(sequence, call)
    });
    let messages = std::iter::once(settings(Policy::Skip)).chain(records);
    let messages = messages.chain(last).collect();
    let mut client = server.client();
    let import = AbortOnDropHandle::new(tokio::spawn(async move {
        send(&mut client, messages)
            .await
            .map(|answers| answers.len())
    }));
    (server, database, import)
}

#[tokio::test]
async fn a_large_import_that_the_server_ends_does_not_wait_for_statistics() {
    let (server, _locked, import) = start_large_import(None).await;
    let database = connect(&server.database_url).await;
    eventually("ANALYZE waits", async || {
        running(&database, "voicecall lists", true).await > 0
    })
    .await;
    let stopped = timeout(Duration::from_secs(5), server.stop()).await;
    stopped.expect("it waits for no statistics");
    let answers = import.await.expect("no panic");
    assert_eq!(answers.expect("all records are in"), 11_000);
}

#[tokio::test]
async fn a_large_import_that_fails_says_so_without_waiting_for_statistics() {
    let wrong = settings(Policy::Skip);
    let (_server, _locked, import) = start_large_import(Some(wrong)).await;
    let ended = timeout(Duration::from_secs(20), import).await;
    let ended = ended
        .expect("it waits for no statistics")
        .expect("no panic");
    assert_refused(ended, Code::InvalidArgument, "INVALID_FIELD", &["settings"]);
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

#[tokio::test]
async fn a_bad_record_is_refused_by_itself_with_all_that_is_wrong() {
    let server = Server::start().await;
    let mut client = server.client();
    let purged = create(&mut client, inbound()).await;
    let request = proto::PurgeVoiceCallRequest {
        uid: purged.uid.clone(),
        ..Default::default()
    };
    client
        .purge_voice_call(request)
        .await
        .expect("it is purged");
    let bad = VoiceCall {
        uid: "x".into(),
        direction: 0,
        duration: Some(-1),
        status: 77,
        created_at: time(4_000_000_000),
        updated_at: time(4_000_000_000),
        deleted_at: time(4_000_000_000),
        recording_url: Some("recording.mp3".into()),
        ..inbound()
    };
    let nameless = inbound();
    let calls = [
        reference(),
        bad,
        VoiceCall {
            direction: 1,
            ..purged.clone()
        },
        nameless,
    ];
    let mut messages = vec![settings(Policy::Skip)];
    messages.extend(
        (10..)
            .zip(calls)
            .map(|(sequence, call)| record(sequence, call)),
    );
    messages.push(ImportVoiceCallsRequest {
        message: Some(Message::Record(ImportRecord {
            sequence: 14,
            voice_call: None,
        })),
    });
    messages.push(record(
        15,
        VoiceCall {
            uid: uuid::Uuid::new_v4().into(),
            ..inbound()
        },
    ));
    let answers = send(&mut client, messages).await.expect("a good import");
    let sequences: Vec<_> = answers.iter().map(|answer| answer.sequence).collect();
    assert_eq!(sequences, [10, 11, 12, 13, 14, 15]);
    let errors: Vec<_> = answers
        .iter()
        .map(|answer| match &answer.result {
            Some(Answer::Error(error)) => {
                let fields = error.field_violations.iter();
                let mut fields: Vec<_> = fields.map(|violation| violation.field.as_str()).collect();
                fields.sort_unstable();
                Some((error.reason(), fields.join(" ")))
            }
            _ => None,
        })
        .collect();
    let invalid = |fields: &str| Some((ErrorReason::InvalidField, fields.to_owned()));
    assert_eq!(
        errors,
        [
            None,
            invalid(
                "voice_call.created_at voice_call.deleted_at voice_call.direction \
                 voice_call.duration voice_call.recording_url voice_call.status \
                 voice_call.uid voice_call.updated_at"
            ),
            Some((ErrorReason::CallPurged, String::new())),
            invalid("voice_call.uid"),
            invalid("voice_call"),
            None,
        ]
    );
    assert_eq!(answers[2].uid, purged.uid);
    assert_eq!(answers[1].uid, "");
}

#[tokio::test]
async fn what_is_no_import_is_refused_and_what_came_before_is_answered() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut refused = async |messages, paths: &[&str]| {
        let answers = send(&mut client, messages).await;
        assert_refused(answers, Code::InvalidArgument, "INVALID_FIELD", paths);
    };
    let nothing = ImportVoiceCallsRequest { message: None };
    refused(vec![record(1, reference())], &["settings"]).await;
    refused(vec![nothing.clone()], &["message"]).await;
    refused(
        vec![settings(Policy::Skip), settings(Policy::Skip)],
        &["settings"],
    )
    .await;
    let unknown = ImportVoiceCallsRequest {
        message: Some(Message::Settings(ImportSettings { conflict_policy: 9 })),
    };
    refused(vec![unknown], &["settings.conflict_policy"]).await;
    assert_eq!(
        send(&mut client, Vec::new())
            .await
            .expect("an empty import"),
        []
    );

    // What is answered before the error is in.
    let (sender, mut receiver) = mpsc::channel(8);
    sender.send(settings(Policy::Skip)).await.expect("open");
    sender.send(record(7, reference())).await.expect("open");
    let answers = client
        .import_voice_calls(stream::poll_fn(move |task| receiver.poll_recv(task)))
        .await;
    let mut answers = answers.expect("it begins").into_inner();
    let first = answers
        .message()
        .await
        .expect("no error")
        .expect("an answer");
    assert_eq!(
        (first.sequence, outcomes(&[first])),
        (7, vec![Outcome::Created])
    );
    sender.send(nothing).await.expect("open");
    assert_refused(
        answers.message().await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &["message"],
    );
    get(&mut client, &reference().uid)
        .await
        .expect("it is there");
}

#[tokio::test]
async fn records_of_one_call_are_imported_in_their_order() {
    let server = Server::start().await;
    let mut client = server.client();
    // Of two calls in turn, so that chunks end at a repeated uid and share others.
    let uids: Vec<_> = (0..40).map(|_| uuid::Uuid::new_v4().to_string()).collect();
    let calls: Vec<_> = (0..2_000_usize)
        .map(|place| VoiceCall {
            uid: uids[(place * place / 7) % uids.len()].clone(),
            duration: Some(i32::try_from(place).expect("small")),
            ..updated(1_600_000_000, "x")
        })
        .collect();
    let answers = import(&mut client, Policy::Replace, calls.clone()).await;
    assert_eq!(answers.len(), calls.len());
    for uid in &uids {
        let Some(last) = calls.iter().rfind(|call| call.uid == *uid) else {
            continue;
        };
        let read = get(&mut client, uid).await.expect("it is there");
        assert_eq!(read.duration, last.duration);
    }
}

#[tokio::test]
async fn imports_and_other_writes_keep_the_log_whole() {
    let server = Server::start().await;
    let calls: Vec<_> = (0..3_000)
        .map(|n| VoiceCall {
            uid: uuid::Uuid::new_v4().to_string(),
            duration: Some(n % 100),
            ..updated(1_600_000_000 + i64::from(n), "imported")
        })
        .collect();
    let mut acknowledged = Vec::new();
    let mut importing = server.client();
    let twice = async {
        import(&mut importing, Policy::ReplaceIfNewer, calls.clone()).await;
        import(&mut importing, Policy::ReplaceIfNewer, calls.clone()).await
    };
    let mut writing = server.client();
    let writes = async {
        for n in 0..200 {
            let created = create(&mut writing, inbound()).await;
            acknowledged.push(created.clone());
            let duration = Some(n);
            let changed = VoiceCall {
                duration,
                ..created
            };
            let changed = update(&mut writing, changed, &["duration"]).await;
            acknowledged.push(changed.expect("it is updated"));
            if let Some(call) = calls.get(usize::try_from(n).expect("small")) {
                // It may not be in yet.
                acknowledged.extend(delete(&mut writing, &call.uid).await.ok());
            }
        }
    };
    let (answers, ()) = tokio::join!(twice, writes);
    assert_eq!(answers.len(), calls.len());
    assert!(
        outcomes(&answers)
            .iter()
            .all(|outcome| !matches!(outcome, Outcome::Created))
    );
    let database = connect(&server.database_url).await;
    check_ledger(&database, &acknowledged).await;
}
