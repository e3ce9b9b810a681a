//! Sessions that died while nobody used them, that an administrator ends or
//! cancels, and that cannot be made: one retry helps, and the log says why not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Code, Request, Status};
use voicecall::proto::GetVoiceCallRequest;

use super::{
    PATIENCE, assert_first_requests, assert_passing, create_within, interruptions::written_at_last,
    send, warm_clients,
};
use crate::support::{
    Server, create, eventually, get, inbound,
    ledger::check_ledger,
    postgres::{Cluster, Durability, connect, database_of},
    proxy::Proxy,
    reads::every_read,
    retry_after,
    server::{NOT_SERVING, Process, SERVING, health, settings},
    writes::create_of,
};

const LOCK: &str = "BEGIN; LOCK TABLE voice_calls, voice_call_changes IN ACCESS EXCLUSIVE MODE";

/// Whether the tests that take long by their nature are to run.
fn are_long_tests_wanted(test: &str) -> bool {
    let is_wanted = std::env::var_os("VOICECALL_TEST_LONG").is_some();
    if !is_wanted {
        eprintln!("{test}: skipped, because it takes long; VOICECALL_TEST_LONG=1 runs it");
    }
    is_wanted
}

#[tokio::test]
async fn sessions_that_were_ended_while_idle_cost_no_request() {
    let server = Server::start().await;
    let (mut clients, call) = warm_clients(&server).await;
    let database = connect(&server.database_url).await;
    for _ in 0..3 {
        let sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
            WHERE datname = current_database() AND application_name LIKE 'voicecall %'";
        database.batch_execute(sql).await.expect("they are ended");
        assert_first_requests(&mut clients, &call, "after the sessions' end").await;
    }
    check_ledger(&database, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_cut_while_idle_cost_no_request() {
    let cluster = Cluster::shared().await;
    let url = cluster.database().await;
    let proxy = Proxy::start(cluster);
    let server = Server::start_on(&proxy.url(database_of(&url)), settings()).await;
    let (mut clients, call) = warm_clients(&server).await;
    for _ in 0..3 {
        proxy.cut();
        assert_first_requests(&mut clients, &call, "after the cut").await;
    }
    check_ledger(&connect(&url).await, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_requests_after_a_restart_of_the_database_are_answered() {
    let cluster = Cluster::start(Durability::Durable);
    let url = cluster.database().await;
    let server = Server::start_on(&url, settings()).await;
    let (mut clients, call) = warm_clients(&server).await;
    tokio::task::block_in_place(|| cluster.kill());
    eventually("the loss is noticed", async || {
        health(server.channel(), "").await == NOT_SERVING
    })
    .await;
    tokio::task::block_in_place(|| cluster.restart());
    eventually("it serves", async || {
        health(server.channel(), "").await == SERVING
    })
    .await;
    assert_first_requests(&mut clients, &call, "after the restart").await;
    check_ledger(&connect(&url).await, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_session_that_pings_refuses_no_request() {
    let rounds = if are_long_tests_wanted("the full count of ended pings") {
        50
    } else {
        4
    };
    let server = Server::start().await;
    let (clients, call) = warm_clients(&server).await;
    let stop = CancellationToken::new();
    let requests = Arc::new(AtomicUsize::new(0));
    let busy: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let (uid, stop, requests) = (call.uid.clone(), stop.clone(), Arc::clone(&requests));
            AbortOnDropHandle::new(tokio::spawn(async move {
                while !stop.is_cancelled() {
                    get(&mut client, &uid).await?;
                    create_within(&mut client, PATIENCE).await?;
                    requests.fetch_add(2, Ordering::Relaxed);
                }
                Ok::<_, Status>(())
            }))
        })
        .collect();
    let database = connect(&server.database_url).await;
    for _ in 0..rounds {
        // The next one is there when the last one has been missed.
        eventually("a session that pings is ended", async || {
            let sql = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid, 5000) \
                FROM pg_stat_activity WHERE datname = current_database() \
                AND application_name = 'voicecall maintenance' AND state = 'idle') ended";
            let row = database.query_one(sql, &[]).await.expect("it answers");
            row.get::<_, i64>(0) > 0
        })
        .await;
        let before = requests.load(Ordering::Relaxed);
        eventually("requests go on", async || {
            let is_over = busy.iter().any(|client| client.is_finished());
            is_over || requests.load(Ordering::Relaxed) > before + 100
        })
        .await;
    }
    stop.cancel();
    for client in busy {
        let answer = client.await.expect("no panic");
        answer.expect("no request is refused");
    }
}

#[tokio::test]
async fn a_read_that_an_administrator_cancels_is_no_bug_of_ours() {
    let server = Server::start().await;
    let (clients, call) = warm_clients(&server).await;
    let database = connect(&server.database_url).await;
    let holder = connect(&server.database_url).await;
    holder.batch_execute(LOCK).await.expect("it is free");
    let reads = AbortOnDropHandle::new(tokio::spawn({
        let (client, uid) = (clients[0].clone(), call.uid.clone());
        async move { every_read(&client, &uid).await }
    }));
    for application in ["voicecall reader", "voicecall lists", "voicecall log"] {
        let cancel = format!(
            "SELECT count(*) FROM (SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = '{application}' \
             AND wait_event_type = 'Lock') cancelled"
        );
        eventually("a statement that waits is cancelled", async || {
            let row = database.query_one(&cancel, &[]).await.expect("it answers");
            row.get::<_, i64>(0) > 0
        })
        .await;
    }
    holder.batch_execute("COMMIT").await.expect("it is free");
    for (kind, answer) in reads.await.expect("no panic") {
        assert_passing(&answer, &format!("{kind}, cancelled"));
    }
}

#[tokio::test]
async fn a_read_waits_for_a_locked_table_for_as_long_as_its_deadline_says() {
    if !are_long_tests_wanted("a read of a table that is locked for 16 s") {
        return;
    }
    let server = Server::start().await;
    let mut client = server.client();
    let uid = create(&mut client, inbound()).await.uid;
    let holder = connect(&server.database_url).await;
    holder.batch_execute(LOCK).await.expect("it is free");
    let locked_until = Instant::now() + Duration::from_secs(16);
    let mut request = Request::new(GetVoiceCallRequest {
        uid: uid.clone(),
        ..Default::default()
    });
    request.set_timeout(Duration::from_secs(30));
    let mut waiting = client.clone();
    let read = AbortOnDropHandle::new(tokio::spawn(async move {
        waiting.get_voice_call(request).await
    }));
    tokio::time::sleep_until(locked_until).await;
    holder.batch_execute("COMMIT").await.expect("it is free");
    let read = read.await.expect("no panic");
    assert!(read.is_ok(), "{read:?}");
}

/// A database whose owner, a role without privileges, is the service's own.
async fn database_of_a_role() -> (String, String) {
    let plain = Cluster::shared().await.database().await;
    let name = format!("slots_{}", database_of(&plain));
    let database = connect(&plain).await;
    let role = format!("role_of_{name}");
    for sql in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("CREATE DATABASE {name} OWNER {role}"),
    ] {
        database.batch_execute(&sql).await.expect("it is new");
    }
    let url = Cluster::shared().await.url(&name);
    (url.replace("user=voicecall", &format!("user={role}")), role)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_finds_no_connection_slot_says_so_in_the_log() {
    let (url, role) = database_of_a_role().await;
    let process = Process::start(&[("DATABASE_URL", &url)]);
    let mut client = process.client();
    create(&mut client, inbound()).await;
    let database = connect(&url.replace(&role, "voicecall")).await;
    let limit = format!(
        "ALTER ROLE {role} CONNECTION LIMIT 0; \
         SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'voicecall writer'"
    );
    database.batch_execute(&limit).await.expect("it is set");
    let write = create_of(inbound());
    let refused = send(&mut client, &write).await;
    let status = refused.expect_err("no writer can connect");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(retry_after(&status).is_some(), "{status:?}");
    eventually("the log says why", async || {
        process.log.has(&["too many connections"])
    })
    .await;
    let no_limit = format!("ALTER ROLE {role} CONNECTION LIMIT -1");
    database.batch_execute(&no_limit).await.expect("it is set");
    let written = timeout(PATIENCE, written_at_last(&mut client, &write)).await;
    let written = written.expect("writes are back");
    assert_eq!(check_ledger(&database, &written).await, 2);
}
