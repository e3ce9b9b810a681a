//! What is measured, printed as a table, and what is asserted of it.

use std::{collections::BTreeSet, fs, process::ExitStatus, time::Duration};

use hdrhistogram::Histogram;

use super::well_behaved::{Kind, Measured};

/// How much slower the slowest requests may be than in quiet: three times, and 10 ms.
const FACTOR: u64 = 3;
const ALLOWANCE_MICROS: u64 = 10_000;
/// What docs/memory.md says that the service comes to at the defaults.
const BUDGET_KIB: u64 = 1_252 * 1024;

/// Ticks of the clock that Linux counts processor time with, in a second.
const TICKS: u64 = 100;

/// What was measured beside one misbehaviour.
pub(super) struct Beside {
    pub(super) name: &'static str,
    pub(super) measured: Measured,
    /// How the bad client ended, if it did not misbehave until the end.
    pub(super) ended: Option<ExitStatus>,
    /// The processor time of the bad client.
    pub(super) bad_client: Duration,
    /// And of the server.
    pub(super) server: Duration,
    pub(super) peak_kib: u64,
}

/// All figures.
pub(super) struct Table {
    quiet: Measured,
    quiet_peak_kib: u64,
    beside: Vec<Beside>,
}

impl Table {
    pub(super) fn new(quiet: Measured, quiet_peak_kib: u64) -> Self {
        println!(
            "| beside | request | quiet p50, p99 (ms) | beside p50, p99 (ms) | requests | failures |\n\
             |---|---|---|---|---|---|"
        );
        Self {
            quiet,
            quiet_peak_kib,
            beside: Vec::new(),
        }
    }

    /// Prints the figures, and keeps them.
    pub(super) fn add(&mut self, beside: Beside) {
        let name = beside.name;
        for (kind, figures) in &beside.measured {
            let quiet = quantiles(&self.quiet[kind].latencies);
            let latencies = quantiles(&figures.latencies);
            let failures = figures.failures.len() as u64;
            let requests = figures.latencies.len() + failures;
            println!("| {name} | {kind} | {quiet} | {latencies} | {requests} | {failures} |");
        }
        println!(
            "| {name} | processor time: {:.1} s, the server {:.1} s | peak memory: {} MiB | | | |",
            beside.bad_client.as_secs_f64(),
            beside.server.as_secs_f64(),
            beside.peak_kib / 1024,
        );
        self.beside.push(beside);
    }

    fn peak_kib(&self) -> u64 {
        let peaks = self.beside.iter().map(|beside| beside.peak_kib);
        peaks.max().unwrap_or(0).max(self.quiet_peak_kib)
    }

    /// Every request is served, none is much slower than in quiet, and the memory is within
    /// its budget.
    pub(super) fn check(&self) {
        let peak = self.peak_kib();
        let (mib, budget) = (peak / 1024, BUDGET_KIB / 1024);
        println!("peak memory: {mib} MiB, documented: {budget} MiB");
        let mut violations = Vec::new();
        for (kind, figures) in &self.quiet {
            violations.extend(failures("nothing", kind, figures));
        }
        for beside in &self.beside {
            if let Some(status) = beside.ended {
                violations.push(format!("{} has ended: {status}", beside.name));
            }
            for (kind, figures) in &beside.measured {
                violations.extend(failures(beside.name, kind, figures));
                let quiet = p99(&self.quiet[kind].latencies);
                let p99 = p99(&figures.latencies);
                if p99 > FACTOR * quiet + ALLOWANCE_MICROS {
                    let (name, p99, quiet) = (beside.name, millis(p99), millis(quiet));
                    violations.push(format!("{kind} beside {name}: {p99} ms, in quiet {quiet}"));
                }
            }
        }
        if peak > BUDGET_KIB {
            violations.push(format!("{peak} KiB at most, of {BUDGET_KIB}"));
        }
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

/// The failures, unless there are none: how many of which.
fn failures(name: &str, kind: &str, figures: &Kind) -> Option<String> {
    let kinds: BTreeSet<&String> = figures.failures.iter().collect();
    let first: Vec<&&String> = kinds.iter().take(3).collect();
    let count = figures.failures.len();
    (count > 0).then(|| format!("{kind} beside {name}: {count} failures: {first:?}"))
}

fn quantiles(latencies: &Histogram<u64>) -> String {
    let p50 = latencies.value_at_quantile(0.5);
    format!("{}, {}", millis(p50), millis(p99(latencies)))
}

fn p99(latencies: &Histogram<u64>) -> u64 {
    latencies.value_at_quantile(0.99)
}

fn millis(micros: u64) -> String {
    format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
}

/// The processor time that a process has used so far.
pub(super) fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // Behind the name, which may hold anything: utime and stime are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(") ").expect("it has a name");
    let fields = rest.split(' ').skip(11).take(2);
    let ticks: u64 = fields.map(|it| it.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}
