//! A commit that fails after its statement has answered, by a constraint that is
//! checked at the end: for every kind of write the answer is an error, and nothing
//! is left of it.

use futures_util::{StreamExt, stream};
use tokio::time::timeout;
use tokio_postgres::Client as Database;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use voicecall::proto::{
    ErrorReason, ImportRecord, ImportSettings, ImportVoiceCallsRequest, UpdateVoiceCallRequest,
    VoiceCall, import_voice_calls_request::Message, import_voice_calls_response::Result as Answer,
};

use super::{PATIENCE, send};
use crate::support::{
    Client, Server, assert_refused, create, delete, get, inbound,
    ledger::check_ledger,
    postgres::{connect, contents, hold_commits, waiting_backend},
    request_id,
    watcher::{Watcher, change, from, live},
    writes::{Write, batch_of, create_of, delete_of, handle_of, purge_of, undelete_of, update_of},
};

/// Calls of this staff member may be refused at the commit.
const OFFENDER: &str = "offender";

/// A constraint that is checked at the commit, and refuses calls of `OFFENDER`
/// while `refusals` has a row. While `pauses` has one, every commit takes long.
const CHECKED_AT_COMMIT: &str = "
    CREATE TABLE refusals (staff_uid text);
    CREATE TABLE pauses (seconds double precision);
    CREATE FUNCTION check_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM refusals r WHERE r.staff_uid IN (NEW.staff_uid, OLD.staff_uid)) THEN
            RAISE EXCEPTION 'refused at the commit';
        END IF;
        PERFORM pg_sleep(p.seconds) FROM pauses p;
        RETURN NULL;
    END;
    $$;
    CREATE CONSTRAINT TRIGGER check_at_commit AFTER INSERT OR UPDATE OR DELETE ON voice_calls
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_at_commit();";

/// Makes commits that offend fail.
pub(super) async fn check_at_commit(database: &Database) {
    database
        .batch_execute(CHECKED_AT_COMMIT)
        .await
        .expect("the names are new");
}

pub(super) async fn refuse_offender(database: &Database) {
    let sql = format!("INSERT INTO refusals VALUES ('{OFFENDER}')");
    database.batch_execute(&sql).await.expect("it is there");
}

pub(super) async fn accept_offender(database: &Database) {
    let sql = "DELETE FROM refusals";
    database.batch_execute(sql).await.expect("it is there");
}

/// A call that is refused at the commit.
pub(super) fn offending() -> VoiceCall {
    VoiceCall {
        staff_uid: Some(OFFENDER.into()),
        ..inbound()
    }
}

/// Sends the write that `prepare` makes while the database refuses its commit,
/// then another, then the first again when the database accepts it.
async fn refused_then_accepted(prepare: impl AsyncFnOnce(&mut Client) -> Write) {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    check_at_commit(&database).await;
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    let write = prepare(&mut client).await;

    refuse_offender(&database).await;
    let before = contents(&database).await;
    let refused = send(&mut client, &write).await;
    assert_refused(refused, Code::Internal, "INTERNAL", &[]);
    assert_eq!(contents(&database).await, before, "nothing is written");
    let next = create(&mut client, inbound()).await;
    assert_eq!(next.revision, before.head + 1, "no revision is skipped");
    let read = get(&mut client, &next.uid).await.expect("it is there");
    assert_eq!(read, next);

    accept_offender(&database).await;
    let accepted = send(&mut client, &write).await.expect("it is accepted now");
    let again = send(&mut client, &write).await.expect("it is known");
    assert_eq!(again, accepted, "a repeat answers the same");
    let head = check_ledger(&database, &accepted).await;
    assert!(head > next.revision);
    let seen: Vec<_> = watcher.until(head).await;
    let seen: Vec<_> = seen.iter().map(|event| change(event).revision).collect();
    let all: Vec<_> = (1..=head).collect();
    // The events of a call may be erased before they are sent, if it is purged.
    if matches!(write, Write::Purge(_)) {
        assert!(seen.is_sorted() && seen.ends_with(&[head]), "{seen:?}");
    } else {
        assert_eq!(seen, all, "a watcher sees what took place, and no more");
    }
}

#[tokio::test]
async fn a_create_that_fails_at_the_commit_has_not_taken_place() {
    refused_then_accepted(async |_| create_of(offending())).await;
}

#[tokio::test]
async fn a_create_with_a_chosen_uid_that_fails_at_the_commit_has_not_taken_place() {
    refused_then_accepted(async |_| {
        create_of(VoiceCall {
            uid: request_id(),
            ..offending()
        })
    })
    .await;
}

#[tokio::test]
async fn a_batch_create_that_fails_at_the_commit_has_not_taken_place() {
    refused_then_accepted(async |_| batch_of(vec![inbound(), offending(), inbound()])).await;
}

#[tokio::test]
async fn an_update_that_fails_at_the_commit_has_not_taken_place() {
    refused_then_accepted(async |client| {
        let call = create(client, offending()).await;
        update_of(VoiceCall {
            duration: Some(7),
            ..call
        })
    })
    .await;
}

#[tokio::test]
async fn an_update_that_creates_and_fails_at_the_commit_has_not_taken_place() {
    refused_then_accepted(async |_| {
        Write::Update(UpdateVoiceCallRequest {
            voice_call: Some(VoiceCall {
                uid: request_id(),
                ..offending()
            }),
            allow_missing: true,
            request_id: request_id(),
            ..Default::default()
        })
    })
    .await;
}

#[tokio::test]
async fn a_handle_that_fails_at_the_commit_has_not_taken_place() {
    refused_then_accepted(async |client| {
        let call = create(client, offending()).await;
        handle_of(&call.uid, "staff")
    })
    .await;
}

#[tokio::test]
async fn a_delete_that_fails_at_the_commit_has_not_taken_place() {
    refused_then_accepted(async |client| {
        let call = create(client, offending()).await;
        delete_of(&call.uid, false)
    })
    .await;
}

#[tokio::test]
async fn an_undelete_that_fails_at_the_commit_has_not_taken_place() {
    refused_then_accepted(async |client| {
        let call = create(client, offending()).await;
        delete(client, &call.uid).await.expect("it is there");
        undelete_of(&call.uid)
    })
    .await;
}

#[tokio::test]
async fn a_purge_that_fails_at_the_commit_has_not_taken_place() {
    refused_then_accepted(async |client| {
        let call = create(client, offending()).await;
        purge_of(&call.uid)
    })
    .await;
}

/// Imports these calls, numbered from 0; returns the result of each, in order.
async fn import(client: &mut Client, calls: &[VoiceCall]) -> Vec<Option<Answer>> {
    let settings = Message::Settings(ImportSettings::default());
    let records = (0..).zip(calls).map(|(sequence, call)| {
        Message::Record(ImportRecord {
            sequence,
            voice_call: Some(call.clone()),
        })
    });
    let messages: Vec<_> = std::iter::once(settings)
        .chain(records)
        .map(|message| ImportVoiceCallsRequest {
            message: Some(message),
        })
        .collect();
    let answers = async {
        let answers = client.import_voice_calls(stream::iter(messages)).await;
        let answers = answers.expect("it starts").into_inner();
        answers.collect::<Vec<_>>().await
    };
    let answers = timeout(PATIENCE, answers).await;
    let mut answers: Vec<_> = answers
        .expect("an import ends")
        .into_iter()
        .map(|answer| answer.expect("one bad record never stops the rest"))
        .collect();
    answers.sort_by_key(|answer| answer.sequence);
    answers.into_iter().map(|answer| answer.result).collect()
}

#[tokio::test]
async fn a_record_that_fails_at_the_commit_stops_no_other() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    check_at_commit(&database).await;
    refuse_offender(&database).await;
    let calls: Vec<_> = (0..5)
        .map(|n| VoiceCall {
            uid: request_id(),
            ..if n == 2 { offending() } else { inbound() }
        })
        .collect();
    let answers = import(&mut client, &calls).await;
    assert_eq!(answers.len(), 5);
    let mut revisions = Vec::new();
    for (n, answer) in answers.iter().enumerate() {
        match answer {
            Some(Answer::Success(success)) => revisions.push(success.revision),
            Some(Answer::Error(error)) if n == 2 => {
                assert_eq!(error.reason(), ErrorReason::Internal);
            }
            other => panic!("record {n}: {other:?}"),
        }
    }
    revisions.sort_unstable();
    assert_eq!(revisions, [1, 2, 3, 4]);
    let refused = get(&mut client, &calls[2].uid).await;
    assert_refused(refused, Code::NotFound, "CALL_NOT_FOUND", &[]);

    accept_offender(&database).await;
    let answers = import(&mut client, &calls).await;
    let is_success = |answer: &Option<Answer>| matches!(answer, Some(Answer::Success(_)));
    assert!(answers.iter().all(is_success), "{answers:?}");
    assert_eq!(check_ledger(&database, &[]).await, 5);
}

#[tokio::test]
async fn the_other_writes_of_a_batch_that_fails_at_the_commit_take_place() {
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    let look = connect(&server.database_url).await;
    check_at_commit(&database).await;
    refuse_offender(&database).await;
    // What is sent while commits wait becomes one batch.
    hold_commits(&database).await;
    let spawn = |call| {
        let mut client = server.client();
        let write = create_of(call);
        AbortOnDropHandle::new(tokio::spawn(async move { send(&mut client, &write).await }))
    };
    let first = spawn(inbound());
    waiting_backend(&look).await;
    let sent: Vec<_> = (0..20)
        .map(|n| spawn(if n == 7 { offending() } else { inbound() }))
        .collect();
    database.batch_execute("COMMIT").await.expect("it ends");
    let mut written = first.await.expect("no panic").expect("it was alone");
    for (n, answer) in sent.into_iter().enumerate() {
        let answer = answer.await.expect("no panic");
        if n == 7 {
            assert_refused(answer, Code::Internal, "INTERNAL", &[]);
        } else {
            written.extend(answer.expect("the others are written"));
        }
    }
    assert_eq!(check_ledger(&look, &written).await, 20);
}
