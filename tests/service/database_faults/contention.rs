//! A batch that has lost to others again and again takes the commit lock before
//! it reads. Its commit is then a statement of its own, which may fail as well.

use tokio_postgres::Client as Database;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use voicecall::proto::VoiceCall;

use super::{
    assert_passing,
    commits::{accept_offender, check_at_commit, offending, refuse_offender},
    interruptions::{interrupt_paused_commit, pause_commits, written_at_last},
    send,
};
use crate::support::{
    Server, assert_refused, create, get, inbound,
    ledger::check_ledger,
    postgres::{connect, contents, hold_commits},
    writes::{Write, update_of},
};

/// More often than a batch loses before it takes the lock first.
const MAX_ROUNDS: usize = 10;

/// What the writer that waits for the commit lock runs, once there is one.
async fn waiting_statement(database: &Database) -> String {
    let sql = "SELECT query FROM pg_stat_activity \
        WHERE wait_event = 'advisory' AND application_name = 'voicecall writer' \
        AND datname = current_database()";
    loop {
        if let Some(row) = database.query_opt(sql, &[]).await.expect("it answers") {
            return row.get(0);
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until that many sessions wait for the commit lock.
async fn until_waiting(database: &Database, wanted: i64) {
    let sql = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
        WHERE d.datname = current_database() AND locktype = 'advisory' AND NOT granted";
    loop {
        let row = database.query_one(sql, &[]).await.expect("it answers");
        if row.get::<_, i64>(0) >= wanted {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A change behind the service's back, to this call.
fn set(call: &VoiceCall, columns: &str) -> String {
    format!(
        "SET LOCAL session_replication_role = replica; \
         UPDATE voice_calls SET {columns} WHERE uid = '{}'",
        call.uid
    )
}

/// Sends a write of this call, and has it lose until it waits for the lock before it reads:
/// the call's revision changes each time after it was read. Two sessions take turns with the
/// lock, the write always between them. Returns the session that has the lock.
async fn lose(server: &Server, call: &VoiceCall, write: Write) -> (Database, Sent) {
    let look = connect(&server.database_url).await;
    let mut holder = connect(&server.database_url).await;
    let mut next = connect(&server.database_url).await;
    hold_commits(&holder).await;
    let sent = AbortOnDropHandle::new(tokio::spawn({
        let mut client = server.client();
        async move { send(&mut client, &write).await }
    }));
    for round in 0..MAX_ROUNDS {
        let statement = waiting_statement(&look).await;
        if !statement.contains("commit_batch") {
            return (holder, sent);
        }
        // Behind the writer.
        let take = async {
            let wait = hold_commits(&next);
            let release = async {
                until_waiting(&look, 2).await;
                let change = set(call, &format!("revision = {}", 1_000_000 + round));
                holder.batch_execute(&change).await.expect("it is there");
                holder.batch_execute("COMMIT").await.expect("it ends");
            };
            tokio::join!(wait, release);
        };
        take.await;
        std::mem::swap(&mut holder, &mut next);
    }
    panic!("the write has lost {MAX_ROUNDS} times, and does not take the lock first");
}

/// The same until it has the lock; the call is changed once more before that.
async fn outlast(server: &Server, call: &VoiceCall, write: Write, last: &str) -> Sent {
    let (holder, sent) = lose(server, call, write).await;
    holder.batch_execute(last).await.expect("it is there");
    holder.batch_execute("COMMIT").await.expect("it ends");
    sent
}

type Sent = AbortOnDropHandle<Result<Vec<VoiceCall>, tonic::Status>>;

/// The call is at its revision again.
fn restored(call: &VoiceCall) -> String {
    set(call, &format!("revision = {}", call.revision))
}

/// A server and a call of the offender on it.
async fn start() -> (Server, Database, VoiceCall) {
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    check_at_commit(&database).await;
    let call = create(&mut server.client(), offending()).await;
    (server, database, call)
}

#[tokio::test]
async fn a_batch_that_takes_the_lock_first_is_committed() {
    let (server, database, call) = start().await;
    let write = update_of(VoiceCall {
        duration: Some(7),
        ..call.clone()
    });
    let sent = outlast(&server, &call, write, &restored(&call)).await;
    let written = sent.await.expect("no panic").expect("it is written");
    assert_eq!(written[0].revision, 2);
    assert_eq!(check_ledger(&database, &written).await, 2);
}

#[tokio::test]
async fn a_batch_that_takes_the_lock_first_and_fails_at_the_commit_is_refused() {
    let (server, database, call) = start().await;
    let mut client = server.client();
    refuse_offender(&database).await;
    let before = contents(&database).await;
    let write = update_of(VoiceCall {
        duration: Some(7),
        ..call.clone()
    });
    let sent = outlast(&server, &call, write.clone(), &restored(&call)).await;
    let refused = sent.await.expect("no panic");
    assert_refused(refused, Code::Internal, "INTERNAL", &[]);
    assert_eq!(contents(&database).await, before, "nothing is written");
    let read = get(&mut client, &call.uid).await.expect("it is there");
    assert_eq!(read, call);
    assert_eq!(create(&mut client, inbound()).await.revision, 2);
    accept_offender(&database).await;
    let written = send(&mut client, &write).await.expect("it is accepted now");
    assert_eq!(written[0].revision, 3);
    assert_eq!(check_ledger(&database, &written).await, 3);
}

#[tokio::test]
async fn a_batch_that_takes_the_lock_first_and_changes_nothing_is_answered() {
    let (server, database, call) = start().await;
    let other = create(&mut server.client(), offending()).await;
    let write = |call: &VoiceCall| {
        update_of(VoiceCall {
            duration: Some(7),
            ..call.clone()
        })
    };
    let deleted = format!("DELETE FROM voice_calls WHERE uid = '{}'", call.uid);
    let sent = outlast(&server, &call, write(&call), &deleted).await;
    let refused = sent.await.expect("no panic");
    assert_refused(refused, Code::NotFound, "CALL_NOT_FOUND", &[]);

    let same = set(&other, "revision = 2, duration = 7");
    let sent = outlast(&server, &other, write(&other), &same).await;
    let written = sent.await.expect("no panic").expect("it is so already");
    assert_eq!((written[0].revision, written[0].duration), (2, Some(7)));
    assert_eq!(contents(&database).await.head, 2);
    assert_eq!(create(&mut server.client(), inbound()).await.revision, 3);
}

#[tokio::test]
async fn a_batch_that_waits_in_vain_to_take_the_lock_first_can_be_retried() {
    let (server, database, call) = start().await;
    let write = update_of(VoiceCall {
        duration: Some(7),
        ..call.clone()
    });
    let (holder, sent) = lose(&server, &call, write.clone()).await;
    let refused = sent.await.expect("no panic");
    assert_refused(refused, Code::Unavailable, "DATABASE_UNAVAILABLE", &[]);
    let last = restored(&call);
    holder.batch_execute(&last).await.expect("it is there");
    holder.batch_execute("COMMIT").await.expect("it ends");
    let written = send(&mut server.client(), &write).await;
    let written = written.expect("the lock is free");
    assert_eq!(check_ledger(&database, &written).await, 2);
}

/// Interrupts the commit of a batch that took the lock first.
async fn interrupted_at_commit(interrupt: &str) {
    let (server, database, call) = start().await;
    let write = update_of(VoiceCall {
        duration: Some(7),
        ..call.clone()
    });
    pause_commits(&database).await;
    let sent = outlast(&server, &call, write.clone(), &restored(&call)).await;
    interrupt_paused_commit(&database, interrupt).await;
    let answer = sent.await.expect("no panic");
    assert_passing(&answer, "interrupted");
    let mut written = answer.unwrap_or_default();
    check_ledger(&database, &written).await;
    written.extend(written_at_last(&mut server.client(), &write).await);
    assert_eq!(check_ledger(&database, &written).await, 2);
}

#[tokio::test]
async fn a_batch_that_took_the_lock_first_and_is_terminated_at_the_commit_is_never_lost_once_acknowledged()
 {
    interrupted_at_commit("pg_terminate_backend").await;
}

#[tokio::test]
async fn a_batch_that_took_the_lock_first_and_is_cancelled_at_the_commit_is_never_lost_once_acknowledged()
 {
    interrupted_at_commit("pg_cancel_backend").await;
}
