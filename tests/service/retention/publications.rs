//! A database that publishes every table: PostgreSQL refuses to change or delete a row
//! of a published table that has no replica identity.

use futures_util::future::join_all;
use voicecall::proto::{ImportConflictPolicy, VoiceCall};

use super::{imports, nothing_kept, write_until_gone};
use crate::support::{
    Server, create, delete, handle, inbound,
    ledger::check_ledger,
    postgres::{Cluster, Durability, connect},
    request_id, update,
    writes::{create_of, purge_of},
};

const PUBLISH: &str = "CREATE PUBLICATION everything FOR ALL TABLES";

fn publishing_cluster() -> Cluster {
    let settings = |_: &_| vec!["wal_level=logical".to_owned()];
    Cluster::start_with(Durability::Fast, 5432, settings)
}

#[tokio::test]
async fn every_write_works_in_a_database_that_publishes_all_tables() {
    let cluster = publishing_cluster();
    let url = cluster.database().await;
    let database = connect(&url).await;
    database.batch_execute(PUBLISH).await.expect("it may");
    let server = Server::start_on(&url, nothing_kept(100_000)).await;
    let mut client = server.client();
    let created = create_of(inbound()).send(&mut client).await;
    let created = created.expect("it is created").remove(0);
    let uid = created.uid.clone();
    let longer = VoiceCall {
        duration: Some(5),
        ..created.clone()
    };
    update(&mut client, longer, &["duration"])
        .await
        .expect("it is updated");
    handle(&mut client, &uid, "ann")
        .await
        .expect("it is handled");
    delete(&mut client, &uid).await.expect("it is deleted");
    let record = VoiceCall {
        duration: Some(7),
        ..created
    };
    let answers = imports::import(&mut client, ImportConflictPolicy::Replace, [record]).await;
    assert!(imports::is_success(&answers[0]), "{answers:?}");
    purge_of(&uid)
        .send(&mut client)
        .await
        .expect("it is purged");
    // What retention deletes by itself.
    write_until_gone(&mut client, &database, 1).await;
    crate::support::eventually("the batches of that partition go", async || {
        let query = "SELECT count(*) FROM voice_call_batches WHERE last_revision < 1000";
        let row = database.query_one(query, &[]).await.expect("it answers");
        row.get::<_, i64>(0) == 0
    })
    .await;
}

#[tokio::test]
async fn creates_beside_purges_are_all_accepted_in_a_database_that_publishes_all_tables() {
    let cluster = publishing_cluster();
    let url = cluster.database().await;
    let database = connect(&url).await;
    database.batch_execute(PUBLISH).await.expect("it may");
    let server = Server::start_on(&url, crate::support::server::settings()).await;
    let mut client = server.client();
    let mut refused = Vec::new();
    for _ in 0..20 {
        let call = VoiceCall {
            uid: request_id(),
            ..inbound()
        };
        let call = create_of(call).send(&mut client).await;
        let call = call.expect("it is created").remove(0);
        // At once, so that some share a batch.
        let mut writes = vec![purge_of(&call.uid)];
        writes.extend((0..10).map(|_| create_of(inbound())));
        let sent = writes.into_iter().map(|write| {
            let mut client = client.clone();
            async move { (write.kind(), write.send(&mut client).await) }
        });
        for (kind, answer) in join_all(sent).await {
            if let Err(status) = answer {
                refused.push(format!("{kind}: {status:?}"));
            }
        }
    }
    let count = refused.len();
    assert!(refused.is_empty(), "{count} of 220: {:?}", refused.first());
    create(&mut client, inbound()).await;
    check_ledger(&database, &[]).await;
}
