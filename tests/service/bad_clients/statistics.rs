//! Clients that ask for statistics without end stand before nobody else.

use futures_util::future::join_all;
use tokio_postgres::Client as Database;
use tonic::Code;
use voicecall::proto::{
    ExportVoiceCallsRequest, GetVoiceCallRequest, GetVoiceCallStatsRequest, ListVoiceCallsRequest,
    VoiceCallFilter,
};

use crate::support::{
    Server, assert_refused, create, eventually, inbound,
    postgres::{connect, running},
    server::{Client, settings},
};

/// Makes the database stop at each call that it reads, until the lock is free: what finds no
/// calls goes on.
const STOP_AT_CALLS: &str = "\
    CREATE FUNCTION stop() RETURNS boolean LANGUAGE plpgsql AS $$ \
    BEGIN PERFORM pg_advisory_xact_lock_shared(7, 7); RETURN true; END $$; \
    ALTER TABLE voice_calls RENAME TO stored_calls; \
    CREATE VIEW voice_calls AS SELECT * FROM stored_calls WHERE stop()";
const HOLD: &str = "SELECT pg_advisory_lock(7, 7)";
const RELEASE: &str = "SELECT pg_advisory_unlock(7, 7)";

const UNKNOWN: &str = "01a21d1b-9d8d-7346-8c84-94cba58986b2";

/// Asks for statistics, as many at once, and waits until the database has stopped at as many
/// as there are connections for.
async fn ask(
    client: &Client,
    look: &Database,
    requests: usize,
    at_once: i64,
) -> Vec<tokio::task::JoinHandle<bool>> {
    let requests = (0..requests).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let request = GetVoiceCallStatsRequest::default();
            client.get_voice_call_stats(request).await.is_ok()
        })
    });
    let requests = requests.collect();
    eventually("the database counts", async || {
        running(look, "voicecall statistics", true).await == at_once
    })
    .await;
    requests
}

#[tokio::test]
async fn other_reads_never_wait_behind_statistics() {
    let server = Server::start().await;
    let mut client = server.client();
    let revision = create(&mut client, inbound()).await.revision;
    let (blocker, look) = (
        connect(&server.database_url).await,
        connect(&server.database_url).await,
    );
    blocker
        .batch_execute(STOP_AT_CALLS)
        .await
        .expect("it stops");
    blocker.batch_execute(HOLD).await.expect("it is free");
    // As many transfers as one connection may have here.
    let counting = ask(&client, &look, 8, 2).await;
    for min_revision in [0, revision] {
        let unknown = GetVoiceCallRequest {
            uid: UNKNOWN.into(),
            min_revision,
        };
        let unknown = client.get_voice_call(unknown).await;
        assert_refused(unknown, Code::NotFound, "CALL_NOT_FOUND", &[]);
        let none = ListVoiceCallsRequest {
            filter: Some(VoiceCallFilter {
                uids: vec![UNKNOWN.into()],
                ..Default::default()
            }),
            min_revision,
            ..Default::default()
        };
        let none = client.list_voice_calls(none).await.expect("it is read");
        assert!(none.into_inner().voice_calls.is_empty());
    }
    let ahead = GetVoiceCallRequest {
        uid: UNKNOWN.into(),
        min_revision: revision + 1,
    };
    let ahead = client.get_voice_call(ahead).await;
    assert_refused(ahead, Code::FailedPrecondition, "REVISION_NOT_REACHED", &[]);
    assert!(!counting.iter().any(tokio::task::JoinHandle::is_finished));
    blocker.batch_execute(RELEASE).await.expect("it is held");
    let counted = join_all(counting).await;
    assert!(
        counted
            .into_iter()
            .all(|counted| counted.expect("no panic"))
    );
}

#[tokio::test]
async fn statistics_take_the_place_of_a_transfer() {
    let mut few = settings();
    few.api.max_transfers = 1;
    let server = Server::start_with(few).await;
    let mut client = server.client();
    create(&mut client, inbound()).await;
    let (blocker, look) = (
        connect(&server.database_url).await,
        connect(&server.database_url).await,
    );
    blocker
        .batch_execute(STOP_AT_CALLS)
        .await
        .expect("it stops");
    blocker.batch_execute(HOLD).await.expect("it is free");
    let counting = ask(&client, &look, 1, 1).await;
    let second = client
        .get_voice_call_stats(GetVoiceCallStatsRequest::default())
        .await;
    assert_refused(second, Code::ResourceExhausted, "OVERLOADED", &[]);
    let export = client
        .export_voice_calls(ExportVoiceCallsRequest::default())
        .await;
    assert_refused(export, Code::ResourceExhausted, "OVERLOADED", &[]);
    blocker.batch_execute(RELEASE).await.expect("it is held");
    let counted = join_all(counting).await;
    assert!(
        counted
            .into_iter()
            .all(|counted| counted.expect("no panic"))
    );
}
