//! The driver of lists: the first page and the last in turn, one request at a time. Latencies on
//! one machine vary by half for seconds at a time, so pages that are not requested in turn cannot
//! be compared.

use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::{
    Result,
    driver::{histogram, micros},
    load::{Client, Load, Target, Workload, channel},
    sample::{Metric, Sample},
};

/// The options of the list driver.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Pages {
    /// Where the server listens.
    #[arg(long)]
    pub(crate) endpoint: String,
    /// The list.
    #[arg(long)]
    pub(crate) load: Load,
    /// Seeded calls.
    #[arg(long)]
    pub(crate) calls: u64,
    /// Seconds to measure each page, after a quarter of that as warm-up.
    #[arg(long)]
    pub(crate) seconds: f64,
}

/// The samples of the two pages.
pub(crate) struct Seen {
    pub(crate) first: Sample,
    pub(crate) last: Sample,
}

/// Sends the requests, and returns the samples.
pub(crate) async fn pages(options: &Pages) -> Result<Seen> {
    let mut client = Client::new(Target::Voicecall, channel(&options.endpoint).await?);
    let first = Workload::prepare(options.load, false, options.calls, &client).await?;
    let last = Workload::prepare(options.load, true, options.calls, &client).await?;
    let mut pages = [(first, histogram()), (last, histogram())];
    let time = Duration::from_secs_f64(options.seconds * 2.0);
    let counted_from = Instant::now() + time / 4;
    while counted_from.elapsed() < time {
        for (work, latencies) in &mut pages {
            let started = Instant::now();
            client.one(work).await?;
            if started >= counted_from {
                latencies.saturating_record(micros(started.elapsed()));
            }
        }
    }
    let [first, last] = pages.map(|(_, latencies)| sample(&latencies));
    Ok(Seen { first, last })
}

/// The rate is that of a client that requests only this page.
fn sample(latencies: &Histogram<u64>) -> Sample {
    let mut sample = Sample::latencies(latencies);
    sample.set(Metric::Rate, 1e6 / latencies.mean());
    sample
}

impl Seen {
    /// As lines for another process.
    pub(crate) fn to_json(&self) -> String {
        format!("{}\n{}", self.first.to_json(), self.last.to_json())
    }

    /// From the lines of another process.
    pub(crate) fn from_json(lines: &str) -> Result<Self> {
        let (first, last) = lines.split_once('\n').ok_or("not two pages")?;
        Ok(Self {
            first: Sample::from_json(first)?,
            last: Sample::from_json(last)?,
        })
    }
}
