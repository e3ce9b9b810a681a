//! The result of a measurement.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::{Map, Value};

use crate::{Result, driver::quantile};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Responses or events per second.
    Rate,
    /// The median latency, in milliseconds.
    P50,
    /// The 99th percentile of the latency, in milliseconds.
    P99,
    /// Requests per second that an open loop began.
    Offered,
    /// Refused requests per second.
    Refused,
    /// The 99th percentile of the latency of refusals, in milliseconds.
    RefusedP99,
    /// Memory, in MiB.
    Mib,
    /// Memory of one of many, in KiB.
    KibEach,
}

impl Metric {
    pub(crate) const ALL: [Self; 8] = [
        Self::Rate,
        Self::P50,
        Self::P99,
        Self::Offered,
        Self::Refused,
        Self::RefusedP99,
        Self::Mib,
        Self::KibEach,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Offered => "offered",
            Self::Refused => "refused",
            Self::RefusedP99 => "refused_p99",
            Self::Mib => "mib",
            Self::KibEach => "kib_each",
        }
    }
}

/// The figures of one measurement.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample(BTreeMap<Metric, f64>);

impl Sample {
    /// One figure.
    pub(crate) fn of(metric: Metric, figure: f64) -> Self {
        let mut sample = Self::default();
        sample.set(metric, figure);
        sample
    }

    /// The quantiles in the table.
    pub(crate) fn latencies(latencies: &Histogram<u64>) -> Self {
        let mut sample = Self::of(Metric::P50, quantile(latencies, 0.5));
        sample.set(Metric::P99, quantile(latencies, 0.99));
        sample
    }

    pub(crate) fn set(&mut self, metric: Metric, figure: f64) {
        self.0.insert(metric, figure);
    }

    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(&metric).copied()
    }

    /// As a line for another process.
    pub(crate) fn to_json(&self) -> String {
        let pairs = self.0.iter();
        let object: Map<String, Value> = pairs
            .map(|(metric, figure)| (metric.name().to_owned(), Value::from(*figure)))
            .collect();
        Value::from(object).to_string()
    }

    /// From the line of another process.
    pub(crate) fn from_json(line: &str) -> Result<Self> {
        let object: Map<String, Value> = serde_json::from_str(line)?;
        let figures = Metric::ALL.into_iter().filter_map(|metric| {
            let figure = object.get(metric.name())?.as_f64()?;
            Some((metric, figure))
        });
        Ok(Self(figures.collect()))
    }
}
