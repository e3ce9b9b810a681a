//! Memory that the service occupies, in a process that has done nothing else.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::{
    Result, driving,
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
    let mut driver = Command::new(std::env::current_exe()?);
    driver.args([
        "watch",
        "--hold",
        "--protocol",
        "voicecall",
        "--seconds",
        "1",
    ]);
    driver.args(["--endpoint", &service.endpoint]);
    driver.args(["--watchers", &WATCHERS.to_string()]);
    let mut driver = driver
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let output = driver.stdout.take().ok_or("no pipe")?;
    let mut output = BufReader::new(output);
    output.read_line(&mut line)?;
    let after = service.resident_mib();
    // It ends with its standard input.
    drop(driver.stdin.take());
    driver.wait()?;
    if line.trim() != "watching" {
        return Err("the watchers could not begin".into());
    }
    let each = (after? - before) * 1024.0 / f64::from(WATCHERS);
    Ok(Sample::of(Metric::KibEach, each))
}
