//! What the plots show: throughput and latency against concurrency, age against
//! the rate of writes, and the cost of lists against the size of the table.

use std::{fs, path::Path};

use crate::{
    Result,
    bench::Bench,
    load::Load,
    messages::Protocol,
    plan::{Build, Entry, Measure, Row, Server},
    plot::{Chart, Line},
    sample::{Metric, Sample},
};

const CONCURRENCY: [usize; 6] = [1, 4, 16, 64, 256, 1024];
const AGE_RATES: [u32; 4] = [50, 200, 1000, 4000];
const SIZES: [u64; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];

type Contenders = &'static [(&'static str, Server)];

/// Each load, and the peers that are measured with it.
const LOADS: [(&str, &str, Load, Contenders); 2] = [
    (
        "create",
        "CreateVoiceCall",
        Load::Create,
        &[
            ("voicecall", Server::Ours),
            ("etcd put", Server::Etcd),
            ("baseline", Server::Baseline),
        ],
    ),
    (
        "get",
        "GetVoiceCall",
        Load::Get,
        &[
            ("voicecall", Server::Ours),
            ("bare tonic", Server::Floor),
            ("etcd get", Server::Etcd),
            ("baseline", Server::Baseline),
        ],
    ),
];

const LISTS: [(&str, Load); 6] = [
    ("by time", Load::ListByTime),
    ("of one staff", Load::ListByStaff),
    ("of one client", Load::ListByClient),
    ("of one number", Load::ListByNumber),
    ("not handled", Load::ListToHandle),
    ("recently updated", Load::ListByUpdate),
];

/// The samples of one contender at each point of the x axis.
type Seen = (String, Vec<(f64, Sample)>);

/// A plot: its file, its y axis, whether that is logarithmic, and its metric.
type Plot = (&'static str, &'static str, bool, Metric);

/// All contenders that the plots need.
pub(crate) fn rows() -> Vec<Row> {
    let contenders = LOADS.iter().flat_map(|(.., load, contenders)| {
        contenders.iter().map(|&(name, server)| Entry {
            build: Build::Present,
            name,
            measure: Measure::Drive(server, *load, 1),
            goals: Vec::new(),
        })
    });
    vec![Row {
        name: "plots".to_owned(),
        entries: contenders.collect(),
    }]
}

/// Measures each point once, and draws the plots.
pub(crate) fn draw(bench: &mut Bench, largest: u64, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    loads(bench, dir)?;
    ages(bench, dir)?;
    sizes(bench, largest, dir)
}

fn loads(bench: &mut Bench, dir: &Path) -> Result<()> {
    for (name, title, load, contenders) in LOADS {
        let mut seen = Vec::new();
        for &(who, server) in contenders {
            let mut points = Vec::new();
            for concurrency in CONCURRENCY {
                eprintln!("plot: {title}, {who} ({concurrency})");
                let sample =
                    bench.measure(Measure::Drive(server, load, concurrency), Build::Present)?;
                points.push((concurrency as f64, sample));
            }
            seen.push((who.to_owned(), points));
        }
        let plots = [
            ("throughput", "answers a second", false, Metric::Rate),
            ("p50", "median latency, ms", true, Metric::P50),
            ("p99", "p99 latency, ms", true, Metric::P99),
        ];
        for plot in plots {
            write(dir, name, title, "concurrent requests", plot, &seen)?;
        }
    }
    Ok(())
}

fn ages(bench: &mut Bench, dir: &Path) -> Result<()> {
    let mut seen = Vec::new();
    for (who, protocol) in [("voicecall", Protocol::Voicecall), ("etcd", Protocol::Etcd)] {
        let mut points = Vec::new();
        for rate in AGE_RATES {
            eprintln!("plot: age, {who} ({rate} writes/s)");
            let sample = bench.measure(Measure::Age(protocol, rate), Build::Present)?;
            points.push((f64::from(rate), sample));
        }
        seen.push((who.to_owned(), points));
    }
    let title = "Write-to-watch age, 100 watchers";
    for plot in [
        ("p50", "median, ms", true, Metric::P50),
        ("p99", "p99, ms", true, Metric::P99),
    ] {
        write(dir, "age", title, "writes a second", plot, &seen)?;
    }
    Ok(())
}

fn sizes(bench: &Bench, largest: u64, dir: &Path) -> Result<()> {
    let mut seen: Vec<Seen> = LISTS
        .iter()
        .map(|(name, _)| ((*name).to_owned(), Vec::new()))
        .collect();
    for size in SIZES.into_iter().filter(|size| *size <= largest) {
        eprintln!("plot: lists of {size} calls");
        let samples = bench.on_size(size, &LISTS.map(|(_, load)| load))?;
        for ((_, points), sample) in seen.iter_mut().zip(samples) {
            points.push((size as f64, sample));
        }
    }
    let plot = ("p50", "median, ms", false, Metric::P50);
    let title = "ListVoiceCalls, a page of 100";
    write(dir, "list", title, "calls in the table", plot, &seen)
}

fn write(
    dir: &Path,
    name: &str,
    title: &str,
    x: &str,
    (file, y, logarithmic, metric): Plot,
    seen: &[Seen],
) -> Result<()> {
    let lines = seen.iter().map(|(who, points)| Line {
        name: who.clone(),
        points: points
            .iter()
            .filter_map(|(x, sample)| Some((*x, sample.get(metric)?)))
            .collect(),
    });
    let chart = Chart {
        title: &format!("{title}: {y}"),
        x,
        logarithmic,
        lines: lines.collect(),
    };
    Ok(fs::write(
        dir.join(format!("{name}-{file}.svg")),
        chart.svg(),
    )?)
}
