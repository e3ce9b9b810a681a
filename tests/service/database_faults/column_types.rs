//! A column's type changes under running replicas, as a migration may do: the
//! plans that sessions keep are of no more use, and no request may notice.

use tonic::Status;
use voicecall::proto::VoiceCall;

use super::{PATIENCE, create_within, send};
use crate::support::{
    Client, Server, create, get, inbound,
    ledger::check_ledger,
    postgres::connect,
    reads::{Answer, assert_answered, every_read},
    server::settings,
    watcher::{Watcher, change, from, live},
    writes::{Write, create_of, delete_of, handle_of, purge_of, undelete_of, update_of},
};

/// Each changes what sessions of the service have prepared.
const CHANGES: [&str; 2] = [
    "ALTER TABLE voice_calls ALTER COLUMN staff_uid TYPE text, \
        ALTER COLUMN call_summary TYPE varchar(65536)",
    "ALTER TABLE voice_call_changes ALTER COLUMN staff_uid TYPE varchar(64), \
        ALTER COLUMN call_summary TYPE varchar(65536)",
];

/// Two replicas, one of which plans its lists once.
async fn replicas() -> [Server; 2] {
    let first = Server::start().await;
    let mut planned = settings();
    planned.store.reads.planned_once_from = 0;
    let second = Server::start_on(&first.database_url, planned).await;
    [first, second]
}

/// Every read of every client, all at once, so that every session has its part.
async fn all_reads(clients: &[Client], uid: &str) -> Vec<Vec<Answer>> {
    let reads = clients.iter().map(|client| every_read(client, uid));
    futures_util::future::join_all(reads).await
}

#[tokio::test]
async fn reads_and_watches_do_not_notice_that_a_column_has_another_type() {
    let replicas = replicas().await;
    let database = connect(&replicas[0].database_url).await;
    let staff = VoiceCall {
        staff_uid: Some("staff".into()),
        ..inbound()
    };
    let call = create(&mut replicas[0].client(), staff).await;
    let clients: Vec<_> = (0..8).map(|n| replicas[n % 2].client()).collect();
    let mut watchers = Vec::new();
    for replica in &replicas {
        // Longer than it takes to read the log anew, which ends no stream.
        let mut request = from(live());
        request.checkpoint_interval = Some(prost_types::Duration {
            seconds: 2,
            nanos: 0,
        });
        let watcher = Watcher::start(&mut replica.client(), request).await;
        watchers.push(watcher.expect("it starts"));
    }
    for sql in CHANGES {
        let before = all_reads(&clients, &call.uid).await;
        database.batch_execute(sql).await.expect("it is changed");
        let after = all_reads(&clients, &call.uid).await;
        for (before, after) in before.iter().zip(after) {
            assert_answered(before, "before");
            assert_answered(&after, sql);
            for ((kind, answer), (_, expected)) in after.into_iter().zip(before) {
                assert_eq!(answer.ok().as_ref(), expected.as_ref().ok(), "{kind}");
            }
        }
        assert_answered(&all_reads(&clients, &call.uid).await.concat(), "later");
    }
    // Each replica hears of the other's changes from the log.
    for replica in &replicas {
        create(&mut replica.client(), inbound()).await;
    }
    for watcher in &mut watchers {
        let events = watcher.until(3).await;
        let revisions: Vec<_> = events.iter().map(|event| change(event).revision).collect();
        assert_eq!(revisions, [2, 3]);
    }
}

/// Every kind of write of one call, in an order that makes sense.
fn writes(uid: &str) -> Vec<Write> {
    let call = VoiceCall {
        uid: uid.into(),
        duration: Some(1),
        ..inbound()
    };
    vec![
        create_of(inbound()),
        update_of(call),
        handle_of(uid, "staff"),
        delete_of(uid, false),
        undelete_of(uid),
        purge_of(uid),
    ]
}

#[tokio::test]
async fn writes_do_not_notice_that_a_column_has_another_type() {
    let replicas = replicas().await;
    let database = connect(&replicas[0].database_url).await;
    for sql in CHANGES {
        let mut calls = Vec::new();
        for replica in &replicas {
            // All sessions of the writer have prepared what they run.
            let mut client = replica.client();
            for _ in 0..10 {
                let call = create(&mut client, inbound()).await;
                for write in writes(&call.uid) {
                    write.send(&mut client).await.expect("before");
                }
            }
            calls.push(create(&mut client, inbound()).await);
        }
        database.batch_execute(sql).await.expect("it is changed");
        for (replica, call) in replicas.iter().zip(&calls) {
            let mut client = replica.client();
            for write in writes(&call.uid) {
                let answer: Result<_, Status> = send(&mut client, &write).await;
                let answer = answer.unwrap_or_else(|status| panic!("{write:?}: {status:?}"));
                let again = send(&mut client, &write).await;
                if !matches!(write, Write::Purge(_)) {
                    assert_eq!(again.ok(), Some(answer), "a repeat of {write:?}");
                }
            }
            let created = create_within(&mut client, PATIENCE).await;
            let created = created.expect("it is written");
            let read = get(&mut client, &created.uid).await;
            assert_eq!(read.ok(), Some(created));
        }
    }
    check_ledger(&database, &[]).await;
}
