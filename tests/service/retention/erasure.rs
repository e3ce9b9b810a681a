//! Purged calls are vacuumed out of the tables' files, and `erased_at` says so: not before
//! it is true, and within a minute after it can be.

use std::time::Duration;

use rand::{Rng, distr::Alphanumeric};
use tokio_postgres::Client as Database;
use voicecall::proto::VoiceCall;

use super::{fill, nothing_kept};
use crate::support::{
    Server, create, eventually_within, handle, inbound,
    postgres::connect,
    update,
    writes::{purge_of, update_of},
};

/// By when a purge is erased that can be.
const IN_TIME: Duration = Duration::from_secs(60);

/// The versions of rows that nobody sees and that are still in the files, those of long
/// texts too, which are in tables of their own.
async fn dead_rows(database: &Database) -> i64 {
    let query = "SELECT coalesce(sum(dead_tuple_count), 0)::bigint \
        FROM pg_class t JOIN pg_class c ON c.oid IN (t.oid, t.reltoastrelid), \
            pgstattuple(c.oid::regclass) \
        WHERE t.relkind = 'r' \
            AND t.relname ~ '^(voice_calls$|voice_call_changes_|idempotency_records_)'";
    let row = database.query_one(query, &[]).await.expect("it answers");
    row.get(0)
}

/// Whether the planner's samples of the columns have this text.
async fn is_sampled(database: &Database, text: &str) -> bool {
    let query = "SELECT FROM pg_stats WHERE schemaname = 'public' \
        AND strpos(concat(most_common_vals, histogram_bounds), $1) > 0";
    let rows = database.query(query, &[&text]).await;
    !rows.expect("it answers").is_empty()
}

async fn is_erased(database: &Database, uid: &str) -> bool {
    let query = "SELECT erased_at IS NOT NULL FROM purged_calls WHERE uid::text = $1";
    let row = database.query_one(query, &[&uid]).await;
    row.expect("it is purged").get(0)
}

/// How often upkeep has looked whether dead rows can go, and whether it is at it.
async fn looks(database: &Database) -> (i64, bool) {
    let query = "SELECT vacuum_count, EXISTS (SELECT FROM pg_stat_activity \
            WHERE datname = current_database() AND application_name = 'voicecall vacuum') \
        FROM pg_stat_user_tables WHERE relname = 'feed'";
    let row = database.query_one(query, &[]).await.expect("it answers");
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn a_purged_call_is_vacuumed_within_a_minute_or_when_nothing_can_see_it_any_more() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let make = "CREATE EXTENSION pgstattuple";
    database.batch_execute(make).await.expect("it is there");
    create(&mut client, inbound()).await;
    // Too long, and too random to be compressed, to be in the row itself.
    let random = rand::rng().sample_iter(Alphanumeric);
    let text: String = random.take(50_000).map(char::from).collect();
    let call = VoiceCall {
        call_summary: Some(text),
        staff_uid: Some("the-secret-staff".into()),
        ..inbound()
    };
    let call = create(&mut client, call).await;
    let uid = call.uid.clone();
    handle(&mut client, &uid, "ann").await.expect("it is there");
    let call = VoiceCall {
        call_summary: Some("short".into()),
        ..call
    };
    update(&mut client, call, &["call_summary"])
        .await
        .expect("it is there");
    database.batch_execute("ANALYZE").await.expect("it is ours");
    assert!(is_sampled(&database, "the-secret-staff").await);

    let other = connect(&server.database_url).await;
    let see = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT FROM voice_calls";
    other.batch_execute(see).await.expect("it is there");
    let purge = purge_of(&uid).send(&mut client).await;
    purge.expect("it is purged");
    let (before, _) = looks(&database).await;
    eventually_within(IN_TIME, "upkeep has looked", async || {
        let (looks, is_looking) = looks(&database).await;
        looks > before && !is_looking
    })
    .await;
    assert!(!is_erased(&database, &uid).await);
    assert!(dead_rows(&database).await > 0);

    other.batch_execute("COMMIT").await.expect("it is open");
    eventually_within(IN_TIME, "it is erased", async || {
        is_erased(&database, &uid).await
    })
    .await;
    assert_eq!(dead_rows(&database).await, 0);
    assert!(!is_sampled(&database, "the-secret-staff").await);
}

#[tokio::test]
async fn a_purge_is_not_erased_while_a_fingerprint_that_it_forgot_later_can_be_seen() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let make = "CREATE EXTENSION pgstattuple";
    database.batch_execute(make).await.expect("it is there");
    let call = create(&mut client, inbound()).await;
    // It changes nothing, so the purge itself does not find its record.
    let write = update_of(call.clone()).send(&mut client).await;
    assert_eq!(write.expect("it is so already")[0].revision, call.revision);
    let see = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT FROM voice_calls";
    let before = connect(&server.database_url).await;
    before.batch_execute(see).await.expect("it is there");
    let purge = purge_of(&call.uid).send(&mut client).await;
    purge.expect("it is there");
    // It sees nothing of the call, and the record as it was.
    let after = connect(&server.database_url).await;
    after.batch_execute(see).await.expect("it is there");
    before.batch_execute("COMMIT").await.expect("it is open");
    let (looks_before, _) = looks(&database).await;
    eventually_within(IN_TIME, "upkeep has looked twice", async || {
        // One that is erased is not looked for again.
        let (looks, is_looking) = looks(&database).await;
        looks > looks_before + 1 && !is_looking || is_erased(&database, &call.uid).await
    })
    .await;
    assert!(!is_erased(&database, &call.uid).await);
    after.batch_execute("COMMIT").await.expect("it is open");
    eventually_within(IN_TIME, "it is erased", async || {
        is_erased(&database, &call.uid).await
    })
    .await;
    assert_eq!(dead_rows(&database).await, 0);
}

#[tokio::test]
async fn a_purge_is_not_erased_while_a_partition_that_it_cannot_reach_is_being_dropped() {
    let server = Server::start_with(nothing_kept(100_000)).await;
    let database = connect(&server.database_url).await;
    let mut client = server.client();
    let call = create(&mut client, inbound()).await;
    let reader = connect(&server.database_url).await;
    let read = "BEGIN; SELECT count(*) FROM voice_call_changes";
    reader.batch_execute(read).await.expect("it is there");
    eventually_within(IN_TIME, "the partition is pending", async || {
        fill(&mut client, 500).await;
        let pending = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending)";
        let row = database.query_one(pending, &[]).await;
        row.expect("it answers").get(0)
    })
    .await;
    let purge = purge_of(&call.uid).send(&mut client).await;
    purge.expect("it is there");
    let (before, _) = looks(&database).await;
    eventually_within(IN_TIME, "upkeep has looked twice", async || {
        let (looks, is_looking) = looks(&database).await;
        looks > before + 1 && !is_looking
    })
    .await;
    assert!(!is_erased(&database, &call.uid).await);
    reader.batch_execute("COMMIT").await.expect("it is open");
    eventually_within(IN_TIME, "it is erased", async || {
        is_erased(&database, &call.uid).await
    })
    .await;
}
