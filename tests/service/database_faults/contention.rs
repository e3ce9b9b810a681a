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

/// Sends a write of this call, and has it lose until it takes the lock first: the
/// call's revision changes each time after it was read, and is itself again in the
/// end. Two sessions take turns with the lock, the write always between them.
async fn outlast(server: &Server, call: &VoiceCall, write: Write) -> Sent {
    let look = connect(&server.database_url).await;
    let mut holder = connect(&server.database_url).await;
    let mut next = connect(&server.database_url).await;
    hold_commits(&holder).await;
    let sent = AbortOnDropHandle::new(tokio::spawn({
        let mut client = server.client();
        async move { send(&mut client, &write).await }
    }));
    let change_revision = async |session: &Database, revision: i64| {
        let sql = format!(
            "SET LOCAL session_replication_role = replica; \
             UPDATE voice_calls SET revision = {revision} WHERE uid = '{}'",
            call.uid
        );
        session.batch_execute(&sql).await.expect("it is there");
    };
    for round in 0..MAX_ROUNDS {
        let statement = waiting_statement(&look).await;
        if !statement.contains("commit_batch") {
            break;
        }
        // Behind the writer.
        let take = async {
            let wait = hold_commits(&next);
            let release = async {
                until_waiting(&look, 2).await;
                let other = i64::try_from(1_000_000 + round).expect("small");
                change_revision(&holder, other).await;
                holder.batch_execute("COMMIT").await.expect("it ends");
            };
            tokio::join!(wait, release);
        };
        take.await;
        std::mem::swap(&mut holder, &mut next);
    }
    change_revision(&holder, call.revision).await;
    holder.batch_execute("COMMIT").await.expect("it ends");
    sent
}

type Sent = AbortOnDropHandle<Result<Vec<VoiceCall>, tonic::Status>>;

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
    let sent = outlast(&server, &call, write).await;
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
    let sent = outlast(&server, &call, write.clone()).await;
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

/// Interrupts the commit of a batch that took the lock first.
async fn interrupted_at_commit(interrupt: &str) {
    let (server, database, call) = start().await;
    let write = update_of(VoiceCall {
        duration: Some(7),
        ..call.clone()
    });
    pause_commits(&database).await;
    let sent = outlast(&server, &call, write.clone()).await;
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
