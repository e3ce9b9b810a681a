//! What is gone is gone, and what is missing is never silent: changes past their
//! retention, purged calls, and the partitions that come and go under load.
//!
//! - `missing`: exports, snapshots, histories and repeats whose changes have left the log
//! - `purges`: what a purge must erase, in answers, in memory and on the disk
//! - `erasure`: the dead rows of purges are vacuumed
//! - `publications`: all of it in a database that publishes every table
//! - `partitions`: partitions are made before they are needed, and dropped without
//!   blocking a writer
//! - `imports`: the order of one call's records, whatever is refused between
//! - `opening`: databases that the service starts on, and one that it refuses

mod erasure;
mod imports;
mod missing;
mod opening;
mod partitions;
mod publications;
mod purges;

use std::time::Duration;

use tokio_postgres::Client as Database;
use voicecall::server::Settings;

use crate::support::{Client, eventually, inbound, server::settings, writes::batch_of};

/// Changes in the log's first partition, which the schema makes.
const FIRST_PARTITION: i64 = 999;

/// Settings under which a partition of the log goes as soon as it is full.
fn nothing_kept(partition_len: i64) -> Settings {
    let mut settings = settings();
    settings.store.retention.keep = Duration::ZERO;
    settings.store.retention.partition_len = partition_len;
    settings
}

/// Creates so many calls of which nothing is known; returns the last revision.
async fn fill(client: &mut Client, count: usize) -> i64 {
    let mut last = 0;
    for _ in 0..count.div_ceil(1000) {
        let created = batch_of(vec![inbound(); count.min(1000)])
            .send(client)
            .await;
        last = created.expect("good").last().expect("some").revision;
    }
    last
}

/// Whether the log has this revision.
async fn is_logged(database: &Database, revision: i64) -> bool {
    let query = "SELECT FROM voice_call_changes WHERE revision = $1";
    let row = database.query_opt(query, &[&revision]).await;
    row.expect("it answers").is_some()
}

/// Writes until the log no longer has this revision.
async fn write_until_gone(client: &mut Client, database: &Database, revision: i64) {
    eventually("the partition is dropped", async || {
        fill(client, 50).await;
        !is_logged(database, revision).await
    })
    .await;
}
