//! Backends that are terminated, and statements that are cancelled, while they
//! commit: what is acknowledged is there, no revision is given out twice, and the
//! same request is safe.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{interval, timeout};
use tokio_postgres::Client as Database;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::Code;
use voicecall::proto::VoiceCall;

use super::{PATIENCE, assert_passing, commits::check_at_commit, send};
use crate::support::{
    Client, Server, inbound,
    ledger::check_ledger,
    postgres::{Cluster, Durability, connect},
    server::settings,
    writes::{Write, create_of},
};

/// How often a writer's backend is terminated, and how often cancelled.
const INTERRUPTIONS: usize = 100;

/// Makes every commit take long.
pub(super) async fn pause_commits(database: &Database) {
    let pause = "INSERT INTO pauses VALUES (60)";
    database.batch_execute(pause).await.expect("it is there");
}

/// Waits until a commit is paused, and interrupts it; those that follow are not
/// paused any more.
pub(super) async fn interrupt_paused_commit(database: &Database, interrupt: &str) {
    let sql = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
        AND application_name = 'voicecall writer' AND datname = current_database()";
    let pid: i32 = loop {
        if let Some(row) = database.query_opt(sql, &[]).await.expect("it answers") {
            break row.get(0);
        }
        tokio::task::yield_now().await;
    };
    let resume = "DELETE FROM pauses";
    database.batch_execute(resume).await.expect("it is there");
    let interrupt = format!("SELECT {interrupt}($1)");
    database.execute(&interrupt, &[&pid]).await.expect("it may");
}

/// Interrupts a commit after its statement has answered.
async fn interrupted_at_commit(interrupt: &str) {
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    check_at_commit(&database).await;
    pause_commits(&database).await;
    let write = create_of(inbound());
    let sent = AbortOnDropHandle::new(tokio::spawn({
        let (mut client, write) = (server.client(), write.clone());
        async move { send(&mut client, &write).await }
    }));
    interrupt_paused_commit(&database, interrupt).await;
    let answer = sent.await.expect("no panic");
    assert_passing(&answer, "interrupted");
    let mut written = answer.unwrap_or_default();
    check_ledger(&database, &written).await;
    // Whether it was written or not, the same request is safe.
    written.extend(written_at_last(&mut server.client(), &write).await);
    assert_eq!(check_ledger(&database, &written).await, 1);
}

/// Sends a write until it is not UNAVAILABLE.
pub(super) async fn written_at_last(client: &mut Client, write: &Write) -> Vec<VoiceCall> {
    let mut pause = interval(Duration::from_millis(5));
    loop {
        match send(client, write).await {
            Err(status) if status.code() == Code::Unavailable => {
                pause.tick().await;
            }
            answer => return answer.expect("it is accepted"),
        }
    }
}

#[tokio::test]
async fn a_commit_whose_backend_is_terminated_after_its_answer_is_never_lost_once_acknowledged() {
    interrupted_at_commit("pg_terminate_backend").await;
}

#[tokio::test]
async fn a_commit_that_is_cancelled_after_its_answer_is_never_lost_once_acknowledged() {
    interrupted_at_commit("pg_cancel_backend").await;
}

/// Interrupts active writers again and again under three clients.
async fn interrupted_writers(interrupt: &str) {
    let cluster = Cluster::start(Durability::Durable);
    let url = cluster.database().await;
    let server = Server::start_on(&url, settings()).await;
    let stop = CancellationToken::new();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (mut client, stop) = (server.client(), stop.clone());
            let acknowledged = Arc::clone(&acknowledged);
            AbortOnDropHandle::new(tokio::spawn(async move {
                let mut written = Vec::new();
                while !stop.is_cancelled() {
                    let write = create_of(inbound());
                    written.extend(written_at_last(&mut client, &write).await);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                written
            }))
        })
        .collect();
    let database = connect(&url).await;
    // Much of what a writer does is done after its statement has answered.
    check_at_commit(&database).await;
    let pause = "INSERT INTO pauses VALUES (0.002)";
    database.batch_execute(pause).await.expect("it is there");
    let sql = format!(
        "SELECT count(*) FROM (SELECT {interrupt}(pid) FROM pg_stat_activity \
         WHERE application_name = 'voicecall writer' AND state = 'active' \
         AND datname = current_database() LIMIT 1) interrupted"
    );
    let mut interrupted = 0;
    let mut progress = 0;
    let mut looks = interval(Duration::from_millis(1));
    let storm = async {
        while interrupted < INTERRUPTIONS {
            looks.tick().await;
            let now = acknowledged.load(Ordering::Relaxed);
            if now < progress {
                continue;
            }
            let row = database.query_one(&sql, &[]).await.expect("it answers");
            if row.get::<_, i64>(0) > 0 {
                interrupted += 1;
                progress = now + 5;
            }
        }
    };
    let storm = timeout(2 * PATIENCE, storm).await;
    assert!(
        storm.is_ok(),
        "writes stopped after {interrupted} interruptions"
    );
    stop.cancel();
    let mut written = Vec::new();
    for client in clients {
        written.extend(client.await.expect("no client panics"));
    }
    assert!(written.len() > INTERRUPTIONS);
    let mut revisions: Vec<_> = written.iter().map(|call| call.revision).collect();
    revisions.sort_unstable();
    let twice: Vec<_> = revisions
        .windows(2)
        .filter(|two| two[0] == two[1])
        .collect();
    assert!(twice.is_empty(), "revisions given out twice: {twice:?}");
    let head = check_ledger(&database, &written).await;
    assert_eq!(usize::try_from(head), Ok(written.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_whose_backends_are_terminated_lose_and_repeat_nothing() {
    interrupted_writers("pg_terminate_backend").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_whose_statements_are_cancelled_lose_and_repeat_nothing() {
    interrupted_writers("pg_cancel_backend").await;
}
