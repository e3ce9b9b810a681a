//! After an import of many records the table is analyzed, which nothing waits for.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client as Database;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};
use voicecall::proto::{ImportConflictPolicy as Policy, ImportVoiceCallsRequest, VoiceCall};

use super::send;
use crate::support::{
    Server, assert_refused, eventually,
    import::{record, settings},
    inbound,
    postgres::{connect, running},
    request_id,
};

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
