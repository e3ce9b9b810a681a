//! The time from the start of the process to the first response.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{
    Result, driving,
    guardian::{As, Guarded, directory},
    load::await_answer,
    sample::{Metric, Sample},
    service::Service,
};

/// The situation at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// On an existing, migrated database.
    External,
    /// With an embedded PostgreSQL that was stopped cleanly.
    Embedded,
    /// With an embedded PostgreSQL that has to be created.
    EmbeddedFirst,
}

/// Starts the service once, and measures that.
pub(crate) fn start(start: Start, database_url: &str) -> Result<Sample> {
    if start == Start::External {
        let environment = [("DATABASE_URL", database_url)];
        return timed(&environment);
    }
    let home = directory(As::Us)?;
    // The directory outlives the service, and not us.
    let mut sleep = Command::new("sleep");
    sleep.arg("infinity");
    let _home = Guarded::start(&sleep, As::Us, "TERM", &home)?;
    let data = reachable(&home)?;
    let environment = [("VOICECALL_DATA_DIR", data.to_str().ok_or("a strange name")?)];
    let first = timed(&environment)?;
    match start {
        Start::EmbeddedFirst => Ok(first),
        _ => timed(&environment),
    }
}

fn timed(environment: &[(&str, &str)]) -> Result<Sample> {
    let started = Instant::now();
    let service = Service::voicecall(environment)?;
    driving(await_answer(&service.endpoint))?;
    let elapsed = started.elapsed();
    Ok(Sample::of(Metric::P50, elapsed.as_secs_f64() * 1e3))
}

/// A directory that the account of the embedded PostgreSQL can enter too.
fn reachable(home: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(home, PermissionsExt::from_mode(0o755))?;
    Ok(home.join("data"))
}
