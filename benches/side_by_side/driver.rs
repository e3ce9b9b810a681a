//! The load driver: a separate process that sends one kind of request and measures the latency
//! of the responses. One thread drives as much load as two, and leaves more of the machine to
//! the servers.

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
    time::{Instant, sleep},
};
use tonic::Status;

use crate::{
    Result,
    load::{Client, Load, Target, Workload, channel},
    open_loop,
    sample::{Metric, Sample},
};

/// The options of the load driver.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Drive {
    /// The API to use.
    #[arg(long)]
    pub(crate) target: Target,
    /// Where the server listens.
    #[arg(long)]
    pub(crate) endpoint: String,
    /// The kind of requests.
    #[arg(long)]
    pub(crate) load: Load,
    /// Seeded calls.
    #[arg(long)]
    pub(crate) calls: u64,
    /// Concurrent requests.
    #[arg(long)]
    pub(crate) concurrency: usize,
    /// Seconds to measure, after a quarter of that as warm-up.
    #[arg(long)]
    pub(crate) seconds: f64,
    /// Requests to begin each second, whether or not earlier ones have ended; voicecall only.
    /// Unset: a request begins when one has ended.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
}

/// The connections that closed-loop requests share, and the concurrent requests on each: a
/// server accepts this many on a connection, and lets others wait.
const CONNECTIONS: usize = 4;
const PER_CONNECTION: usize = 64;

/// Sends the load, and returns the measurement.
pub(crate) async fn drive(options: &Drive) -> Result<Sample> {
    let time = Duration::from_secs_f64(options.seconds);
    let connections = match options.rate {
        Some(_) => 1,
        None => CONNECTIONS
            .max(options.concurrency / PER_CONNECTION)
            .min(options.concurrency),
    };
    let mut clients = Vec::new();
    for _ in 0..connections {
        let channel = channel(&options.endpoint).await?;
        clients.push(Client::new(options.target, channel));
    }
    let work = Workload::prepare(options.load, false, options.calls, &clients[0]).await?;
    match options.rate {
        Some(_) if options.target != Target::Voicecall => {
            Err("only voicecall is driven at a rate".into())
        }
        Some(rate) => open_loop::run(&options.endpoint, &work, rate, time).await,
        None => closed_loop(&clients, &work, options.concurrency, time).await,
    }
}

/// Each client sends its next request when it has the response to the last.
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
