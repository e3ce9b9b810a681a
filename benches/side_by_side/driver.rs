//! The load driver: a process of its own that sends one kind of request and
//! tells how long the answers took. One thread drives as much as two, and leaves
//! the others more of the machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tonic::{Code, Status};

use crate::{
    Result,
    load::{Client, Load, Target, Workload, channel},
    sample::{Metric, Sample},
};

/// What to drive, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Drive {
    /// Which API to speak.
    #[arg(long)]
    pub(crate) target: Target,
    /// Where the server listens.
    #[arg(long)]
    pub(crate) endpoint: String,
    /// What to ask for.
    #[arg(long)]
    pub(crate) load: Load,
    /// The last page of a list, not the first.
    #[arg(long)]
    pub(crate) last_page: bool,
    /// Seeded calls.
    #[arg(long)]
    pub(crate) calls: u64,
    /// Requests under way at once.
    #[arg(long)]
    pub(crate) concurrency: usize,
    /// Seconds to measure, after a quarter of that as warm-up.
    #[arg(long)]
    pub(crate) seconds: f64,
    /// Requests to begin each second, whatever becomes of them. Without: as many
    /// as are answered.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
}

/// Connections that closed-loop requests share, and requests that fit on one: a
/// server takes so many and lets the others wait.
const CONNECTIONS: usize = 4;
const PER_CONNECTION: usize = 64;
/// Connections that open-loop requests share, so that none of them is full.
const OPEN_CONNECTIONS: usize = 64;
/// Requests under way at which an open loop begins no more. They are missing in
/// the rate that it proves.
const OPEN_LIMIT: usize = 50_000;

/// Drives, and answers what was seen.
pub(crate) async fn drive(options: &Drive) -> Result<Sample> {
    let connections = match options.rate {
        Some(_) => OPEN_CONNECTIONS,
        None => CONNECTIONS
            .max(options.concurrency / PER_CONNECTION)
            .min(options.concurrency),
    };
    let mut clients = Vec::new();
    for _ in 0..connections {
        let channel = channel(&options.endpoint).await?;
        clients.push(Client::new(options.target, channel));
    }
    let work =
        Workload::prepare(options.load, options.last_page, options.calls, &clients[0]).await?;
    let time = Duration::from_secs_f64(options.seconds);
    match options.rate {
        Some(rate) => open_loop(&clients, &work, rate, time).await,
        None => closed_loop(&clients, &work, options.concurrency, time).await,
    }
}

/// Whoever is answered asks again.
async fn closed_loop(
    clients: &[Client],
    work: &Arc<Workload>,
    concurrency: usize,
    time: Duration,
) -> Result<Sample> {
    let counting = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for n in 0..concurrency {
        let mut client = clients[n % clients.len()].clone();
        let (counting, over, work) = (counting.clone(), over.clone(), work.clone());
        workers.spawn(async move {
            let mut latencies = histogram();
            while !over.load(Ordering::Relaxed) {
                let started = Instant::now();
                client.one(&work).await?;
                if counting.load(Ordering::Relaxed) {
                    latencies.saturating_record(micros(started.elapsed()));
                }
            }
            Ok::<_, Status>(latencies)
        });
    }
    sleep(time / 4).await;
    counting.store(true, Ordering::Relaxed);
    let started = Instant::now();
    sleep(time).await;
    let elapsed = started.elapsed();
    over.store(true, Ordering::Relaxed);
    let mut all = histogram();
    while let Some(worker) = workers.join_next().await {
        all.add(worker??)?;
    }
    let mut sample = Sample::latencies(&all);
    sample.set(Metric::Rate, all.len() as f64 / elapsed.as_secs_f64());
    Ok(sample)
}

/// What an open loop has seen.
struct Seen {
    /// When counting begins. Latencies are of what was due since, rates of what
    /// was answered since.
    counted: Instant,
    answered: Histogram<u64>,
    refused: Histogram<u64>,
    answers: u64,
    refusals: u64,
    failed: u64,
    /// Of those the first.
    failure: Option<Code>,
}

/// Requests begin when they are due, and the latency of answers counts from then:
/// what waits, in the driver too, is not hidden.
async fn open_loop(
    clients: &[Client],
    work: &Arc<Workload>,
    rate: f64,
    time: Duration,
) -> Result<Sample> {
    let start = Instant::now();
    let counted = start + time / 4;
    let end = counted + time;
    let mut under_way = JoinSet::new();
    let mut seen = Seen::since(counted);
    let (mut due, mut begun) = (0u32, 0u64);
    loop {
        let at = start + Duration::from_secs_f64(f64::from(due) / rate);
        if at >= end {
            break;
        }
        if at > Instant::now() {
            sleep_until(at).await;
        } else if due.is_multiple_of(16) {
            // Those under way get their turn also when the driver is late.
            tokio::task::yield_now().await;
        }
        while let Some(ended) = under_way.try_join_next() {
            seen.note(ended?);
        }
        if Instant::now() > end {
            break;
        }
        if under_way.len() < OPEN_LIMIT {
            begun += u64::from(at >= counted);
            let mut client = clients[due as usize % clients.len()].clone();
            let work = work.clone();
            under_way.spawn(async move {
                let sent = Instant::now();
                let answer = client.one(&work).await;
                let code = answer.err().map(|status| status.code());
                // An answer is late by what the driver is late, a refusal is not.
                let from = code.map_or(at, |_| sent);
                (at, from.elapsed(), code)
            });
        }
        due += 1;
    }
    let seconds = counted.elapsed().as_secs_f64();
    while let Some(ended) = under_way.try_join_next() {
        seen.note(ended?);
    }
    // What is answered later was not answered in this time.
    let (answers, refusals) = (seen.answers as f64, seen.refusals as f64);
    let rest = async {
        while let Some(ended) = under_way.join_next().await {
            seen.note(ended?);
        }
        Ok::<_, tokio::task::JoinError>(())
    };
    tokio::time::timeout(Duration::from_secs(20), rest).await??;
    let mut sample = seen.sample()?;
    sample.set(Metric::Offered, begun as f64 / seconds);
    sample.set(Metric::Rate, answers / seconds);
    sample.set(Metric::Refused, refusals / seconds);
    Ok(sample)
}

impl Seen {
    /// Nothing yet.
    fn since(counted: Instant) -> Self {
        Self {
            counted,
            answers: 0,
            refusals: 0,
            answered: histogram(),
            refused: histogram(),
            failed: 0,
            failure: None,
        }
    }

    /// The latencies.
    fn sample(&self) -> Result<Sample> {
        if let Some(code) = self.failure {
            let failed = self.failed;
            return Err(format!("{failed} requests failed and were not refused: {code}").into());
        }
        let mut sample = Sample::latencies(&self.answered);
        sample.set(Metric::RefusedP99, quantile(&self.refused, 0.99));
        Ok(sample)
    }

    fn note(&mut self, (due, latency, code): (Instant, Duration, Option<Code>)) {
        if due + latency < self.counted {
            return;
        }
        let (count, latencies) = match code {
            None => (&mut self.answers, &mut self.answered),
            Some(Code::ResourceExhausted) => (&mut self.refusals, &mut self.refused),
            Some(code) => {
                self.failed += 1;
                self.failure.get_or_insert(code);
                return;
            }
        };
        *count += 1;
        if due >= self.counted {
            latencies.saturating_record(micros(latency));
        }
    }
}

/// Latencies up to a minute, in microseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order")
}

/// In milliseconds.
pub(crate) fn quantile(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
