//! Imports and exports, compared with COPY of the same rows.

use std::{path::PathBuf, time::Instant};

use crate::{
    Result,
    bench::driver,
    postgres::Postgres,
    sample::{Metric, Sample},
    service::Service,
};

/// A database with the schema and nothing in it, to be copied.
const EMPTY: &str = "empty";
const IMPORTED: &str = "imported";
const COPIED: &str = "copied";

/// Imports this many calls into an empty database. The sample includes the memory that the
/// service needed.
pub(crate) fn import(postgres: &Postgres, calls: u64) -> Result<Sample> {
    fresh(postgres, IMPORTED)?;
    let service = Service::on(&postgres.url(IMPORTED))?;
    let options = [
        ("--what", "import".to_owned()),
        ("--endpoint", service.endpoint.clone()),
        ("--calls", calls.to_string()),
    ];
    let before = service.resident_mib()?;
    let mut sample = driver("transfer", options, &[])?;
    sample.set(Metric::Mib, service.peak_mib()? - before);
    Ok(sample)
}

/// The rows of that import, by COPY into an empty table with the same indexes.
pub(crate) fn copy_in(postgres: &Postgres) -> Result<Sample> {
    let file = rows_file(postgres);
    let name = file.display();
    postgres.sql(IMPORTED, &format!("\\copy voice_calls TO '{name}'"))?;
    let count: f64 = postgres
        .sql(IMPORTED, "SELECT count(*) FROM voice_calls")?
        .parse()?;
    fresh(postgres, COPIED)?;
    let started = Instant::now();
    postgres.sql(COPIED, &format!("\\copy voice_calls FROM '{name}'"))?;
    let rate = count / started.elapsed().as_secs_f64();
    std::fs::remove_file(file)?;
    Ok(Sample::of(Metric::Rate, rate))
}

/// Exports all calls of a service that has just started.
pub(crate) fn export(postgres: &Postgres, database: &str) -> Result<Sample> {
    let service = Service::on(&postgres.url(database))?;
    let options = [
        ("--what", "export".to_owned()),
        ("--endpoint", service.endpoint.clone()),
    ];
    let before = service.resident_mib()?;
    let mut sample = driver("transfer", options, &[])?;
    sample.set(Metric::Mib, service.peak_mib()? - before);
    Ok(sample)
}

/// The same rows by COPY, into a file.
pub(crate) fn copy_out(postgres: &Postgres, database: &str) -> Result<Sample> {
    let file = rows_file(postgres);
    let count: f64 = postgres
        .sql(database, "SELECT count(*) FROM voice_calls")?
        .parse()?;
    let started = Instant::now();
    postgres.sql(
        database,
        &format!("\\copy voice_calls TO '{}'", file.display()),
    )?;
    let rate = count / started.elapsed().as_secs_f64();
    std::fs::remove_file(file)?;
    Ok(Sample::of(Metric::Rate, rate))
}

/// By status and day, as GetVoiceCallStats counts them, in psql.
pub(crate) fn count(postgres: &Postgres, database: &str) -> Result<Sample> {
    const SQL: &str = "\\timing on\n\
        SELECT date_trunc('day', created_at, 'Europe/Berlin'), status, count(*), \
            count(handled_at), sum(duration), avg(duration), \
            avg(date_part('epoch', handled_at - created_at)) \
        FROM voice_calls WHERE deleted_at IS NULL GROUP BY 1, 2 ORDER BY 1, 2 \\g /dev/null\n";
    let output = postgres.sql(database, &SQL.repeat(5))?;
    let mut times: Vec<f64> = output
        .lines()
        .filter_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).ok_or("psql told no time")?;
    Ok(Sample::of(Metric::P50, *median))
}

fn fresh(postgres: &Postgres, database: &str) -> Result<()> {
    postgres.sql("postgres", &format!("DROP DATABASE IF EXISTS {database}"))?;
    let sql = format!("CREATE DATABASE {database} TEMPLATE {EMPTY}");
    postgres.sql("postgres", &sql)?;
    postgres.checkpoint()
}

fn rows_file(postgres: &Postgres) -> PathBuf {
    postgres.dir().join("rows")
}

/// The name of the empty database, which must exist.
pub(crate) const fn empty() -> &'static str {
    EMPTY
}
