//! Others have taken the connections of the database: that is no outage.

use std::{path::Path, time::Duration};

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio_postgres::{Client as Database, NoTls};
use tonic::{Code, Status};
use voicecall::proto::{CreateVoiceCallRequest, GetVoiceCallStatsRequest, ListVoiceCallsRequest};

use crate::support::{
    Client, Server, assert_refused, create, eventually, facts, get, inbound,
    postgres::{Cluster, Durability, connect, running},
    retry_after,
    server::{Process, SERVING, channel, health, settings},
    watcher::{Watcher, from, live, outline},
};

const UNKNOWN: &str = "01a21d1b-9d8d-7346-8c84-94cba58986b2";
/// Longer than anything takes that is not broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a server with two threads may have at once, by the README.
const WANTED: usize = 19 + 2 + 2 + 2 * 4;

async fn cluster(max_connections: usize) -> Cluster {
    let setting = format!("max_connections={max_connections}");
    let reserved = "superuser_reserved_connections=0".to_owned();
    Cluster::start_with(Durability::Fast, 5432, |_: &Path| vec![setting, reserved])
}

/// Takes all the connections that are left.
async fn take_the_rest(url: &str) -> Vec<Database> {
    let mut taken = Vec::new();
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                taken.push(client);
            }
            Err(error) => {
                let code = error.code().expect("the database says so").code();
                assert_eq!(code, "53300");
                return taken;
            }
        }
    }
}

async fn write_and_read(client: &mut Client) {
    let uid = create(client, inbound()).await.uid;
    get(client, &uid).await.expect("it is there");
    let unknown = get(client, UNKNOWN).await;
    assert_refused(unknown, Code::NotFound, "CALL_NOT_FOUND", &[]);
}

/// Ends the sessions of writes and look-ups.
const END_SESSIONS: &str = "SELECT count(pg_terminate_backend(pid, 5000)) \
    FROM pg_stat_activity \
    WHERE application_name IN ('voicecall writer', 'voicecall reader') \
    AND datname = current_database()";

/// Waits until writes and look-ups go on after that; returns what they were refused with.
async fn go_on(server: &Server) -> Vec<Status> {
    let mut client = server.client();
    let mut refused = Vec::new();
    eventually("writes and look-ups go on", async || {
        let request = CreateVoiceCallRequest {
            voice_call: Some(inbound()),
            ..Default::default()
        };
        let work = async {
            let created = client.create_voice_call(request).await?.into_inner();
            let uid = created.voice_call.expect("always set").uid;
            get(&mut client, &uid).await
        };
        work.await.map_err(|status| refused.push(status)).is_ok()
    })
    .await;
    refused
}

fn assert_overloaded(status: &Status) {
    let (code, reason, _) = facts(status);
    assert_eq!((code, &*reason), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(retry_after(status).is_some());
}

#[tokio::test]
async fn a_read_without_a_connection_is_refused_and_all_else_goes_on() {
    let cluster = cluster(20).await;
    let url = cluster.database().await;
    let server = Process::start(&[("DATABASE_URL", &url), ("VOICECALL_WORKERS", "2")]);
    let mut client = server.client();
    write_and_read(&mut client).await;
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    watcher.checkpoint().await;
    let mut taken = take_the_rest(&url).await;
    for _ in 0..3 {
        let list = client.list_voice_calls(ListVoiceCallsRequest::default());
        assert_overloaded(&list.await.expect_err("no connection is left"));
        let stats = client.get_voice_call_stats(GetVoiceCallStatsRequest::default());
        assert_overloaded(&stats.await.expect_err("no connection is left"));
        write_and_read(&mut client).await;
    }
    let revision = create(&mut client, inbound()).await.revision;
    assert_eq!(outline(&watcher.until(revision).await).len(), 4);
    assert_eq!(health(channel(&server.endpoint), "").await, SERVING);
    assert!(!server.log.has(&["database", "unavailable"]));
    let said = server.log.lines();
    let said: Vec<&String> = said
        .iter()
        .filter(|line| line.contains("no connection for "))
        .collect();
    assert_eq!(said.len(), 1, "{said:#?}");
    let wanted = format!("may need {WANTED}");
    assert!(said[0].contains(&wanted), "{said:?}");
    taken.clear();
    eventually("lists are read again", async || {
        let list = ListVoiceCallsRequest::default();
        client.list_voice_calls(list).await.is_ok()
    })
    .await;
}

/// Reads until the task is dropped; whatever is refused is refused as overload.
async fn read_for_ever(mut client: Client, lists: bool) {
    loop {
        let read = if lists {
            let list = ListVoiceCallsRequest::default();
            client.list_voice_calls(list).await.map(drop)
        } else {
            let stats = GetVoiceCallStatsRequest::default();
            client.get_voice_call_stats(stats).await.map(drop)
        };
        if let Err(status) = read {
            assert_overloaded(&status);
        }
    }
}

/// Writes and looks up while others read all that they can.
async fn write_among_reads(max_connections: usize) {
    let cluster = cluster(max_connections).await;
    let url = cluster.database().await;
    let server = Server::start_on(&url, settings()).await;
    let mut reading = JoinSet::new();
    for n in 0..32 {
        reading.spawn(read_for_ever(server.client(), n % 2 == 0));
    }
    let writing = (0..8).map(|_| {
        let mut client = server.client();
        async move {
            for _ in 0..40 {
                write_and_read(&mut client).await;
            }
        }
    });
    let all = tokio::time::timeout(PATIENCE, join_all(writing)).await;
    all.expect("everybody is answered");
    assert!(reading.try_join_next().is_none(), "a read was no overload");
}

#[tokio::test]
async fn with_one_connection_less_than_wanted_writes_and_look_ups_never_fail() {
    write_among_reads(WANTED - 1).await;
}

#[tokio::test]
async fn with_next_to_no_connection_for_reads_writes_and_look_ups_never_fail() {
    write_among_reads(10).await;
}

#[tokio::test]
async fn writes_and_look_ups_take_the_place_of_connections_that_are_never_idle() {
    let cluster = cluster(10).await;
    let url = cluster.database().await;
    let server = Server::start_on(&url, settings()).await;
    write_and_read(&mut server.client()).await;
    let control = connect(&url).await;
    let mut reading = JoinSet::new();
    for n in 0..32 {
        reading.spawn(read_for_ever(server.client(), n % 2 == 0));
    }
    for _ in 0..3 {
        control.query(END_SESSIONS, &[]).await.expect("they end");
        let refused = go_on(&server).await;
        let codes: Vec<Code> = refused.iter().map(Status::code).collect();
        assert!(!codes.contains(&Code::ResourceExhausted), "{codes:?}");
    }
    assert!(reading.try_join_next().is_none(), "a read was no overload");
}

#[tokio::test]
async fn a_look_up_takes_the_place_of_statistics_that_follow_each_other() {
    let cluster = cluster(20).await;
    let url = cluster.database().await;
    let server = Server::start_on(&url, settings()).await;
    write_and_read(&mut server.client()).await;
    let control = connect(&url).await;
    let slow = "ALTER TABLE voice_calls RENAME TO stored_calls; \
        CREATE VIEW voice_calls AS SELECT * FROM stored_calls WHERE pg_sleep(0.2) IS NOT NULL";
    control.batch_execute(slow).await.expect("it is the owner");
    let mut reading = JoinSet::new();
    for _ in 0..12 {
        reading.spawn(read_for_ever(server.client(), false));
    }
    eventually("statistics have their connections", async || {
        running(&control, "voicecall statistics", false).await == 2
    })
    .await;
    let _taken = take_the_rest(&url).await;
    let end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
        WHERE application_name IN \
            ('voicecall reader', 'voicecall listener', 'voicecall notifier') \
        AND datname = current_database()";
    control.query(end, &[]).await.expect("they end");
    let _more = take_the_rest(&url).await;
    let unknown = get(&mut server.client(), UNKNOWN).await;
    assert_refused(unknown, Code::NotFound, "CALL_NOT_FOUND", &[]);
    assert!(reading.try_join_next().is_none(), "a read was no overload");
}
