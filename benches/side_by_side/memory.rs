//! Memory that the service occupies, in a process that has done nothing else.

use crate::{
    Result,
    companion::Running,
    driving,
    load::await_answer,
    sample::{Metric, Sample},
    service::Service,
};

/// Watchers at once.
const WATCHERS: u32 = 10_000;

/// Of the service, when it has answered once.
pub(crate) fn idle(database_url: &str) -> Result<Sample> {
    let service = Service::on(database_url)?;
    driving(await_answer(&service.endpoint))?;
    Ok(Sample::of(Metric::Mib, service.resident_mib()?))
}

/// Of one watcher that nothing happens to.
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
