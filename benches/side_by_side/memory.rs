//! The memory that the service uses, in a process that has done nothing else.

use crate::{
    Result,
    companion::Running,
    driving,
    load::await_answer,
    sample::{Metric, Sample},
    service::Service,
};

/// Concurrent watchers.
const WATCHERS: u32 = 10_000;

/// The memory of the service after its first response.
pub(crate) fn idle(database_url: &str) -> Result<Sample> {
    let service = Service::on(database_url)?;
    driving(await_answer(&service.endpoint))?;
    Ok(Sample::of(Metric::Mib, service.resident_mib()?))
}

/// The memory of one idle watcher.
pub(crate) fn of_watchers(database_url: &str) -> Result<Sample> {
    let service = Service::on(database_url)?;
    driving(await_answer(&service.endpoint))?;
    let before = service.resident_mib()?;
    let watchers = ["watch", "--watchers", &WATCHERS.to_string()];
    let watching = Running::start(&watchers, &service.endpoint)?;
    let after = service.resident_mib()?;
    watching.finish()?;
    let each = (after - before) * 1024.0 / f64::from(WATCHERS);
    Ok(Sample::of(Metric::KibEach, each))
}
