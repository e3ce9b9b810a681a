//! Fills a database with calls, directly by SQL.

use crate::{
    Result,
    calls::{CLIENTS, FROM_NUMBERS, STAFF, TO_NUMBERS},
    postgres::Postgres,
};

/// Writes calls 1 to `calls` and their changes into a migrated, empty database.
pub(crate) fn seed(postgres: &Postgres, database: &str, calls: u64) -> Result<()> {
    let variables = [
        ("calls", calls),
        ("partition_end", partition_end(calls)),
        ("staff", STAFF),
        ("clients", CLIENTS),
        ("from_numbers", FROM_NUMBERS),
        ("to_numbers", TO_NUMBERS),
    ];
    let set: String = variables
        .iter()
        .map(|(name, value)| format!("\\set {name} {value}\n"))
        .collect();
    postgres.sql(database, &format!("{set}{}", include_str!("seed.sql")))?;
    Ok(())
}

/// Where the partitions of the log end after seeding: with some space left, as after a
/// migration; the service creates more.
pub(crate) fn partition_end(calls: u64) -> u64 {
    (calls / 1000 + 2) * 1000
}
