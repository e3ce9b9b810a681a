//! Throughput and latency against concurrency, for the plots.

use std::{fs, path::Path};

use crate::{
    Result,
    bench::Bench,
    load::Load,
    plan::{Entry, Measure, Row, Server},
    plot::{Chart, Line},
    sample::{Metric, Sample},
};

const CONCURRENCY: [usize; 6] = [1, 4, 16, 64, 256, 1024];

type Contender = (&'static str, Server);

/// Each load, and who stands beside us in it.
const SWEEPS: [(&str, &str, Load, &[Contender]); 2] = [
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

/// Everyone who is needed.
pub(crate) fn rows() -> Vec<Row> {
    let entries = |load, contenders: &[Contender]| {
        let contenders = contenders.iter();
        let entries = contenders.map(|&(name, server)| Entry {
            name,
            measure: Measure::Drive(server, load, 1),
            goals: Vec::new(),
        });
        entries.collect()
    };
    SWEEPS
        .iter()
        .map(|(name, _, load, contenders)| Row {
            name: (*name).to_owned(),
            entries: entries(*load, contenders),
        })
        .collect()
}

/// Measures each once, and draws.
pub(crate) fn draw(bench: &mut Bench, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (name, title, load, contenders) in SWEEPS {
        let mut samples: Vec<(&str, Vec<(usize, Sample)>)> = Vec::new();
        for &(who, server) in contenders {
            let mut seen = Vec::new();
            for concurrency in CONCURRENCY {
                eprintln!("plot: {title}, {who} ({concurrency})");
                let sample = bench.measure(Measure::Drive(server, load, concurrency))?;
                seen.push((concurrency, sample));
            }
            samples.push((who, seen));
        }
        let lines = |metric, suffix: &str| -> Vec<Line> {
            let lines = samples.iter().map(|(who, seen)| Line {
                name: format!("{who}{suffix}"),
                points: seen
                    .iter()
                    .filter_map(|(x, sample)| Some((*x as f64, sample.get(metric)?)))
                    .collect(),
            });
            lines.collect()
        };
        let charts = [
            ("throughput", "answers a second", false, Metric::Rate),
            ("p50", "median latency, ms", true, Metric::P50),
            ("p99", "p99 latency, ms", true, Metric::P99),
        ];
        for (file, y, logarithmic, metric) in charts {
            let chart = Chart {
                title: &format!("{title}: {y}"),
                x: "requests under way at once",
                y: "",
                logarithmic,
                lines: lines(metric, ""),
            };
            fs::write(dir.join(format!("{name}-{file}.svg")), chart.svg())?;
        }
    }
    Ok(())
}
