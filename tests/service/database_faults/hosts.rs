//! Connections and hosts that freeze, swallow what is sent to them, or accept and
//! never speak: every wait has an end, and what still works is found.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use voicecall::proto::{
    VoiceCall, watch_voice_calls_request::Start, watch_voice_calls_response::Message,
};

use super::{PATIENCE, assert_first_requests, assert_passing, create_within, warm_clients};
use crate::support::{
    Client, Server, create, eventually, inbound,
    ledger::check_ledger,
    postgres::{Cluster, connect, database_of, hold_commits, waiting_backend},
    proxy::{Direction, Proxy},
    reads::{assert_answered, every_read, every_read_within},
    server::{NOT_SERVING, Process, SERVING, client, health, settings},
    watcher::{Watcher, change, from, live},
};

/// After so long everything works again, over what still works.
const RECOVERY: Duration = Duration::from_secs(15);
/// A client's deadline, after which it tries again.
const DEADLINE: Duration = Duration::from_secs(3);

/// The host that a connection string names.
fn host_of(url: &str) -> String {
    let host = url.split(' ').find_map(|part| part.strip_prefix("host="));
    host.expect("it has one").to_owned()
}

/// A connection string that names two hosts, this one first.
fn first_of_two(first: &Proxy, second: &Proxy, database: &str) -> String {
    let url = first.url(database);
    let host = host_of(&url);
    let both = format!("{host},{}", host_of(&second.url(database)));
    url.replace(&host, &both)
}

/// Has every client ask for everything with a short deadline, again and again,
/// until all is answered twice in a row, at most the time for recovery.
async fn until_all_work(clients: &[Client], call: &VoiceCall) {
    let mut answered_in_a_row = 0;
    let mut last = BTreeSet::new();
    let all_work = async {
        while answered_in_a_row < 2 {
            let rounds = clients.iter().map(|client| round(client, call));
            let failed: BTreeSet<_> = join_all(rounds).await.into_iter().flatten().collect();
            if failed.is_empty() {
                answered_in_a_row += 1;
            } else {
                answered_in_a_row = 0;
                last = failed;
            }
        }
    };
    let all_work = timeout(RECOVERY, all_work).await;
    assert!(all_work.is_ok(), "not answered in {RECOVERY:?}: {last:#?}");
}

/// One request of each kind, all at once; returns those that failed, with their code.
async fn round(client: &Client, call: &VoiceCall) -> Vec<String> {
    let mut writer = client.clone();
    let (reads, created) = tokio::join!(
        every_read_within(DEADLINE, client, &call.uid, None),
        create_within(&mut writer, DEADLINE),
    );
    let created = created.map(|call| call.uid);
    reads
        .into_iter()
        .chain([("create", created)])
        .filter_map(|(kind, answer)| Some(format!("{kind}: {:?}", answer.err()?.code())))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_old_connections_swallow_is_found_out_and_new_ones_are_used() {
    let cluster = Cluster::shared().await;
    let url = cluster.database().await;
    let proxy = Proxy::start(cluster);
    let server = Server::start_on(&proxy.url(database_of(&url)), settings()).await;
    let (mut clients, call) = warm_clients(&server).await;
    let watcher = Watcher::start(&mut clients[0], from(live())).await;
    let mut watcher = watcher.expect("it starts");
    watcher.checkpoint().await;
    proxy.swallow_present();
    until_all_work(&clients, &call).await;
    assert_first_requests(&mut clients, &call, "afterwards").await;
    assert_eq!(health(server.channel(), "").await, SERVING);
    // The stream has either gone on or ended; nothing is missing after a resume.
    let last = create(&mut clients[1], inbound()).await.revision;
    let mut seen = Vec::new();
    let mut token = watcher.token.clone();
    while seen.last() != Some(&last) {
        match watcher.next().await {
            Ok(Message::EventBatch(batch)) => {
                seen.extend(batch.events.iter().map(|event| change(event).revision));
                token = batch.resume_token;
            }
            Ok(_) => {}
            Err(status) => {
                assert_passing(&Err::<(), _>(status), "the watch");
                let start = Start::ResumeToken(token.clone());
                let resumed = Watcher::start(&mut clients[1], from(start)).await;
                watcher = resumed.expect("the database is there");
            }
        }
    }
    assert!(seen.windows(2).all(|two| two[1] == two[0] + 1), "{seen:?}");
    let stop = timeout(RECOVERY / 3, server.stop()).await;
    stop.expect("what was swallowed does not delay the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_connections_swallow_everything_stops_soon() {
    let proxy = Proxy::start(Cluster::shared().await);
    let url = Cluster::shared().await.database().await;
    let mut patient = settings();
    patient.drain_timeout = 4 * RECOVERY;
    let server = Server::start_on(&proxy.url(database_of(&url)), patient).await;
    let (clients, call) = warm_clients(&server).await;
    proxy.swallow_present();
    // They are answered or not; their deadline has passed.
    join_all(clients.iter().map(|client| round(client, &call))).await;
    let stop = timeout(RECOVERY, server.stop()).await;
    stop.expect("the drain timeout is for requests that are answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_host_that_never_speaks_does_not_keep_a_server_from_starting() {
    let cluster = Cluster::shared().await;
    let url = cluster.database().await;
    let (silent, sound) = (Proxy::start(cluster), Proxy::start(cluster));
    silent.silent(true);
    let both = first_of_two(&silent, &sound, database_of(&url));
    let (process, serving) = Process::launch(&[("DATABASE_URL", &both)]);
    let served = tokio::task::block_in_place(|| serving.recv_timeout(RECOVERY));
    let endpoint = served.expect("it starts in time");
    let mut client = client(&endpoint);
    let call = create_within(&mut client, RECOVERY).await;
    let call = call.expect("the second host takes writes");
    assert_answered(&every_read(&client, &call.uid).await, "at the second host");
    // Besides the line of the start, which names both.
    let host = host_of(&silent.url(database_of(&url)));
    let lines = process.log.lines();
    let failed = |line: &String| line.contains(&host) && !line.contains("listening on");
    assert!(lines.iter().any(failed), "{lines:#?}");
    let head = check_ledger(&connect(&url).await, &[call]).await;
    assert_eq!(head, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_only_host_never_responds_logs_so_and_waits_for_it() {
    let cluster = Cluster::shared().await;
    let url = cluster.database().await;
    let proxy = Proxy::start(cluster);
    proxy.silent(true);
    let url = proxy.url(database_of(&url));
    let host = host_of(&url);
    let (process, serving) = Process::launch(&[("DATABASE_URL", &url)]);
    // The line of the start names it too, once it serves.
    eventually(
        "a line of the log names the host and says why",
        async || process.log.has(&[&host]),
    )
    .await;
    proxy.silent(false);
    let served = tokio::task::block_in_place(|| serving.recv_timeout(RECOVERY));
    served.unwrap_or_else(|_| panic!("it waits in vain: {:#?}", process.log.lines()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_host_that_freezes_is_given_up_for_the_second() {
    let cluster = Cluster::shared().await;
    let url = cluster.database().await;
    let (frozen, sound) = (Proxy::start(cluster), Proxy::start(cluster));
    let both = first_of_two(&frozen, &sound, database_of(&url));
    let server = Server::start_on(&both, settings()).await;
    let (mut clients, call) = warm_clients(&server).await;
    frozen.freeze(Direction::Both);
    until_all_work(&clients, &call).await;
    for _ in 0..3 {
        assert_first_requests(&mut clients, &call, "at the second host").await;
    }
    assert_eq!(health(server.channel(), "").await, SERVING);
    check_ledger(&connect(&url).await, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_so_while_the_only_host_is_frozen_and_when_it_is_back() {
    let cluster = Cluster::shared().await;
    let url = cluster.database().await;
    let proxy = Proxy::start(cluster);
    let server = Server::start_on(&proxy.url(database_of(&url)), settings()).await;
    let (clients, call) = warm_clients(&server).await;
    proxy.freeze(Direction::Both);
    let is = async |status| health(server.channel(), "").await == status;
    let told = timeout(
        RECOVERY,
        eventually("it is told", async || is(NOT_SERVING).await),
    );
    told.await
        .expect("nobody is sent to a server that cannot serve");
    let unanswered = round(&clients[0], &call).await;
    assert!(!unanswered.is_empty());
    proxy.thaw();
    until_all_work(&clients, &call).await;
    let told = timeout(
        RECOVERY,
        eventually("it is told", async || is(SERVING).await),
    );
    told.await.expect("everything works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_held_back_is_found_out_through_the_other_host() {
    let cluster = Cluster::shared().await;
    let url = cluster.database().await;
    let (frozen, sound) = (Proxy::start(cluster), Proxy::start(cluster));
    let both = first_of_two(&frozen, &sound, database_of(&url));
    let server = Server::start_on(&both, settings()).await;
    let mut client = server.client();
    let first = create(&mut client, inbound()).await;
    frozen.freeze(Direction::ToClient);
    let created = create_within(&mut client, PATIENCE).await;
    let created = created.expect("it was committed, which can be found out");
    assert_eq!(created.revision, 2);
    assert_eq!(
        check_ledger(&connect(&url).await, &[first, created]).await,
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_whose_connection_is_lost_is_ended_although_it_waits_for_a_lock() {
    let cluster = Cluster::shared().await;
    let url = cluster.database().await;
    let proxy = Proxy::start(cluster);
    let server = Server::start_on(&proxy.url(database_of(&url)), settings()).await;
    let (holder, look) = (connect(&url).await, connect(&url).await);
    hold_commits(&holder).await;
    let created = AbortOnDropHandle::new(tokio::spawn({
        let mut client = server.client();
        async move { create_within(&mut client, PATIENCE).await }
    }));
    let pid = waiting_backend(&look).await;
    proxy.cut();
    let is_gone = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        let row = look.query_one(sql, &[&pid]).await.expect("it answers");
        row.get::<_, i64>(0) == 0
    };
    let ended = timeout(Duration::from_secs(3), eventually("it is gone", is_gone)).await;
    ended.expect("the lost backend is ended at once, while the lock is still held");
    holder.batch_execute("COMMIT").await.expect("it ends");
    let created = created.await.expect("no panic");
    let created = created.expect("it was not committed, so it is repeated");
    assert_eq!(check_ledger(&look, &[created]).await, 1);
}
