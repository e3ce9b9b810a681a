//! Partitions are created before they are needed, and dropped without blocking a writer, even if
//! others read or lock them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tokio::time::Instant;
use voicecall::proto::ImportConflictPolicy;

use super::{imports, nothing_kept};
use crate::support::{
    Server, create, eventually, eventually_within, inbound,
    ledger::check_ledger,
    postgres::{Cluster, connect},
    request_id,
    server::{Process, settings},
    writes::{batch_of, create_of},
};

/// A partition of the idempotency records spans so many seconds.
const SLOT_SECONDS: u64 = 6 * 3600;
/// Longer than any write may be blocked.
const LONGEST_WRITE: Duration = Duration::from_millis(1500);
/// Longer than upkeep waits for a lock and tries again, and once more.
const WATCHED: Duration = Duration::from_secs(22);

#[tokio::test]
async fn a_forgotten_transaction_that_has_read_idempotency_records_blocks_no_writer() {
    let server = Server::start_with(nothing_kept(1000)).await;
    let mut client = server.client();
    create_of(inbound())
        .send(&mut client)
        .await
        .expect("it is created");
    let reader = connect(&server.database_url).await;
    let read = "BEGIN; SELECT count(*) FROM idempotency_records";
    reader.batch_execute(read).await.expect("it may");
    // A partition of ten days ago.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let slot = now.expect("it is later").as_secs() / SLOT_SECONDS - 40;
    let old = format!("idempotency_records_slot_{slot:08}");
    let make = format!(
        "CREATE TABLE {old} (LIKE idempotency_records INCLUDING ALL); \
         ALTER TABLE idempotency_records ATTACH PARTITION {old} \
             FOR VALUES FROM (to_timestamp({})) TO (to_timestamp({}))",
        slot * SLOT_SECONDS,
        (slot + 1) * SLOT_SECONDS,
    );
    let database = connect(&server.database_url).await;
    database.batch_execute(&make).await.expect("it is made");

    let started = Instant::now();
    let (mut longest, mut writes, mut failures) = (Duration::ZERO, 0, Vec::new());
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    while started.elapsed() < WATCHED {
        turns.tick().await;
        let sent = Instant::now();
        let answer = create_of(inbound()).send(&mut client).await;
        writes += 1;
        // More than the partitions hold that were made at the start.
        let answer = match answer {
            Ok(_) if writes % 10 == 0 => batch_of(vec![inbound(); 100]).send(&mut client).await,
            answer => answer,
        };
        longest = longest.max(sent.elapsed());
        if let Err(status) = answer {
            failures.push(format!("after {:?}: {status:?}", started.elapsed()));
        }
    }
    let count = failures.len();
    let first = failures.first();
    assert!(
        failures.is_empty() && longest < LONGEST_WRITE,
        "the longest of {writes} writes took {longest:?}, and {count} failed: {first:?}"
    );
    reader.batch_execute("COMMIT").await.expect("it is open");
    eventually("the old partition goes", async || {
        let query = "SELECT FROM pg_class WHERE relname = $1";
        let row = database.query_opt(query, &[&old]).await;
        row.expect("it answers").is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_time_is_ahead_of_the_clock_has_partitions_for_both_at_once() {
    let url = Cluster::shared().await.database().await;
    let database = connect(&url).await;
    // Two slots ahead, so that the ranges overlap.
    let ahead = "INSERT INTO voice_call_batches (last_revision, stamp, committed_at) \
        VALUES (0, 0, clock_timestamp() + interval '12 hours')";
    database
        .batch_execute(ahead)
        .await
        .expect("the log is empty");
    let process = Process::start(&[("DATABASE_URL", &url)]);
    create(&mut process.client(), inbound()).await;
    eventually(
        "there are partitions for a day from both times on",
        async || {
            let query = "SELECT count(*) FROM pg_inherits \
            WHERE inhparent = 'idempotency_records'::regclass";
            let row = database.query_one(query, &[]).await.expect("it answers");
            row.get::<_, i64>(0) >= 7
        },
    )
    .await;
    assert!(
        !process.log.has(&["partition"]),
        "{:#?}",
        process.log.lines()
    );
}

#[tokio::test]
async fn an_import_that_is_faster_than_upkeep_finds_a_partition_for_every_change() {
    const RECORDS: usize = 20_000;
    let mut settings = settings();
    settings.store.retention.partition_len = 1000;
    let server = Server::start_with(settings).await;
    let records = (0..RECORDS).map(|_| voicecall::proto::VoiceCall {
        uid: request_id(),
        ..inbound()
    });
    let mut importer = server.client();
    let importing = imports::import(&mut importer, ImportConflictPolicy::Replace, records);
    let is_over = std::cell::Cell::new(false);
    let creating = join_all((0..8).map(|_| {
        let (mut client, is_over) = (server.client(), &is_over);
        async move {
            let (mut created, mut failures) = (0, Vec::new());
            // One failure is enough.
            while !is_over.get() && failures.is_empty() {
                match create_of(inbound()).send(&mut client).await {
                    Ok(_) => created += 1,
                    Err(status) => failures.push(status),
                }
            }
            (created, failures)
        }
    }));
    let importing = async {
        let answers = importing.await;
        is_over.set(true);
        answers
    };
    let (answers, creates) = tokio::join!(importing, creating);
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| !imports::is_success(answer))
        .collect();
    let created: usize = creates.iter().map(|(created, _)| created).sum();
    let failures: Vec<_> = creates.iter().flat_map(|(_, failures)| failures).collect();
    assert!(
        refused.is_empty() && failures.is_empty(),
        "{} of {} records refused, {} creates failed beside {created}: {:?} {:?}",
        refused.len(),
        answers.len(),
        failures.len(),
        refused.first(),
        failures.first(),
    );
    assert_eq!(answers.len(), RECORDS);
    let database = connect(&server.database_url).await;
    let head = check_ledger(&database, &[]).await;
    let expected = i64::try_from(RECORDS + created).expect("it fits");
    assert_eq!(head, expected);
}

#[tokio::test]
async fn one_that_hangs_while_it_makes_partitions_stops_no_writer() {
    let server = Server::start_with(nothing_kept(1000)).await;
    let mut client = server.client();
    // A process that was frozen when it had the lock.
    let frozen = connect(&server.database_url).await;
    let lock = "SELECT pg_advisory_lock(8642101, 4)";
    frozen.batch_execute(lock).await.expect("it is free");
    // More than the partitions hold that were made at the start.
    for _ in 0..40 {
        let request = batch_of(vec![inbound(); 100]);
        eventually_within(Duration::from_secs(30), "it is created", async || {
            request.clone().send(&mut client).await.is_ok()
        })
        .await;
    }
    let database = connect(&server.database_url).await;
    check_ledger(&database, &[]).await;
}
