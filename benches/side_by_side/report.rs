//! The table.

use std::{fs, path::Path};

use crate::{
    Result,
    plan::{Entry, Goal, Row},
    sample::{Metric, Sample},
};

/// The samples of one entry: one for each round in which it succeeded.
pub(crate) type Seen = Vec<Option<Sample>>;

const HEAD: [&str; 9] = [
    "what",
    "who",
    "a second",
    "p50 ms",
    "p99 ms",
    "else",
    "ours to it",
    "goal",
    "met",
];

/// The medians of all rounds, with the least and the greatest.
pub(crate) fn table(rows: &[Row], seen: &[Vec<Seen>]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    for (row, seen) in rows.iter().zip(seen) {
        for (n, entry) in row.entries.iter().enumerate() {
            let mut cells = figures(entry, &seen[n]);
            if n == 0 {
                cells[0].clone_from(&row.name);
            }
            let mut verdicts = verdicts(entry, n, seen).into_iter();
            if let Some(verdict) = verdicts.next() {
                cells[6..].clone_from_slice(&verdict);
            }
            lines.push(cells);
            for verdict in verdicts {
                let mut cells: [String; 9] = Default::default();
                cells[6..].clone_from_slice(&verdict);
                lines.push(cells);
            }
        }
    }
    markdown(&lines)
}

/// Whether everything was measured in every round.
pub(crate) fn complete(seen: &[Vec<Seen>]) -> bool {
    seen.iter().flatten().flatten().all(Option::is_some)
}

/// Puts the table into a document, between two comments.
pub(crate) fn put_into(document: &Path, table: &str) -> Result<()> {
    let text = fs::read_to_string(document)?;
    let (before, rest) = text.split_once(BEGIN).ok_or("no place for the table")?;
    let (_, after) = rest.split_once(END).ok_or("no place for the table")?;
    let text = format!("{before}{BEGIN}\n{table}\n{END}{after}");
    Ok(fs::write(document, text)?)
}

const BEGIN: &str = "<!-- the table: written by the benchmark -->";
const END: &str = "<!-- the end of the table -->";

fn figures(entry: &Entry, seen: &Seen) -> [String; 9] {
    let all = |metric| {
        let samples = seen.iter().flatten();
        samples.filter_map(|sample| sample.get(metric)).collect()
    };
    let show =
        |metric| Spread::of(all(metric)).map_or_else(String::new, |s| s.show(digits(metric)));
    let mut other = Vec::new();
    for (metric, before, after) in [
        (Metric::Offered, "offered ", "/s"),
        (Metric::Refused, "refused ", "/s"),
        (Metric::RefusedP99, "refused in p99 ", " ms"),
        (Metric::Mib, "", " MiB"),
        (Metric::KibEach, "", " KiB"),
    ] {
        let figure = show(metric);
        if !figure.is_empty() {
            other.push(format!("{before}{figure}{after}"));
        }
    }
    if seen.iter().any(Option::is_none) {
        other.push("FAILED".to_owned());
    }
    let mut cells: [String; 9] = Default::default();
    cells[1] = entry.name.to_owned();
    cells[2] = show(Metric::Rate);
    cells[3] = show(Metric::P50);
    cells[4] = show(Metric::P99);
    cells[5] = other.join(", ");
    cells
}

/// Ratio, goal, and whether it is met, of each goal of an entry.
fn verdicts(entry: &Entry, n: usize, seen: &[Seen]) -> Vec<[String; 3]> {
    if n == 0 {
        let goals = entry.goals.iter();
        return goals.map(|goal| by_itself(*goal, &seen[0])).collect();
    }
    if entry.goals.is_empty() {
        let ratio = ratio(Metric::Rate, &seen[0], &seen[n]);
        return ratio
            .map(|ratio| [ratio.show(2), String::new(), String::new()])
            .into_iter()
            .collect();
    }
    let goals = entry.goals.iter();
    goals
        .map(|goal| {
            let ratio = ratio(goal.metric, &seen[0], &seen[n]);
            let shown = ratio.as_ref().map_or_else(|| "?".to_owned(), |r| r.show(2));
            let name = match goal.metric {
                Metric::P50 => "p50 ",
                Metric::P99 => "p99 ",
                _ => "",
            };
            [
                format!("{name}{shown}"),
                format!(
                    "{} {}",
                    if goal.metric == Metric::Rate {
                        "≥"
                    } else {
                        "≤"
                    },
                    goal.bound
                ),
                met(*goal, ratio.map(|r| r.median)),
            ]
        })
        .collect()
}

fn by_itself(goal: Goal, seen: &Seen) -> [String; 3] {
    let figures = seen.iter().flatten().filter_map(|s| s.get(goal.metric));
    let median = Spread::of(figures.collect()).map(|s| s.median);
    let (name, unit) = match goal.metric {
        Metric::P50 => ("p50 ", " ms"),
        Metric::P99 => ("p99 ", " ms"),
        Metric::RefusedP99 => ("refused ", " ms"),
        Metric::Mib => ("", " MiB"),
        Metric::KibEach => ("", " KiB"),
        _ => ("", ""),
    };
    let goal_text = format!("{name}≤ {}{unit}", goal.bound);
    [String::new(), goal_text, met(goal, median)]
}

fn met(goal: Goal, figure: Option<f64>) -> String {
    let met = figure.is_some_and(|figure| match goal.metric {
        Metric::Rate => figure >= goal.bound,
        _ => figure <= goal.bound,
    });
    if met { "yes" } else { "no" }.to_owned()
}

/// The ratio of the service to a peer, round by round: a disturbance affects both.
fn ratio(metric: Metric, ours: &Seen, theirs: &Seen) -> Option<Spread> {
    let pairs = ours.iter().zip(theirs);
    let ratios = pairs.filter_map(|(ours, theirs)| {
        Some(ours.as_ref()?.get(metric)? / theirs.as_ref()?.get(metric)?)
    });
    Spread::of(ratios.collect())
}

/// Figures of several rounds.
pub(crate) struct Spread {
    pub(crate) median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        Some(Self {
            median: *figures.get(figures.len() / 2)?,
            min: *figures.first()?,
            max: *figures.last()?,
        })
    }

    fn show(&self, digits: usize) -> String {
        let median = number(self.median, digits);
        let (min, max) = (number(self.min, digits), number(self.max, digits));
        if min == max {
            median
        } else {
            format!("{median} ({min}..{max})")
        }
    }
}

const fn digits(metric: Metric) -> usize {
    match metric {
        Metric::Rate | Metric::Offered | Metric::Refused => 0,
        Metric::Mib | Metric::KibEach => 1,
        _ => 2,
    }
}

/// With commas between thousands.
fn number(figure: f64, digits: usize) -> String {
    let text = format!("{figure:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// Lines as a table that is aligned as text and renders as Markdown.
fn markdown(lines: &[[String; 9]]) -> String {
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let mut text = String::new();
    for (n, line) in lines.iter().enumerate() {
        let cells = line.iter().enumerate();
        let padded = cells.map(|(column, cell)| {
            let missing = width(column) - cell.chars().count();
            format!("{cell}{}", " ".repeat(missing))
        });
        text.push_str(&format!("| {} |\n", padded.collect::<Vec<_>>().join(" | ")));
        if n == 0 {
            let rules: Vec<_> = (0..line.len()).map(|c| "-".repeat(width(c))).collect();
            text.push_str(&format!("| {} |\n", rules.join(" | ")));
        }
    }
    text
}
