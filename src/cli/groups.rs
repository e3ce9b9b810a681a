//! The output of statistics: a table with bars, plain fields, or JSON.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::{
    bucket::{Bucket, Zone},
    failure::Failure,
    screen::Screen,
    table::{Cell, Column, Table},
    time::Rfc3339,
    view,
};
use crate::proto::{VoiceCallStatsKey, VoiceCallStatsRow};

/// What calls are grouped by.
pub(super) struct Layout {
    pub(super) bucket: Option<Bucket>,
    pub(super) status: bool,
    pub(super) direction: bool,
    pub(super) staff: bool,
    pub(super) zone: Zone,
}

impl Layout {
    /// The headings of the key columns.
    fn titles(&self) -> Vec<&'static str> {
        let titles = [
            self.bucket.map(Bucket::title),
            self.status.then_some("STATUS"),
            self.direction.then_some("DIRECTION"),
            self.staff.then_some("STAFF"),
        ];
        titles.into_iter().flatten().collect()
    }

    /// The values of the key columns; `None` where a group has none.
    fn key(&self, row: &VoiceCallStatsRow) -> Vec<Option<String>> {
        let default = VoiceCallStatsKey::default();
        let key = row.key.as_ref().unwrap_or(&default);
        let mut values = Vec::new();
        if let Some(bucket) = self.bucket {
            values.push(
                key.bucket_start
                    .map(|start| self.zone.format(bucket, start)),
            );
        }
        if self.status {
            values.push(key.status.and_then(view::status));
        }
        if self.direction {
            values.push(key.direction.and_then(view::direction));
        }
        if self.staff {
            values.push(key.staff_uid.as_deref().map(view::one_line));
        }
        values
    }
}

/// Writes a row as a line of JSON, the key first, with null where a group has no value.
pub(super) fn json(
    row: &VoiceCallStatsRow,
    layout: &Layout,
    out: &mut impl Write,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        bucket_start: Option<Rfc3339>,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<Option<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        direction: Option<Option<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        staff_uid: Option<Option<&'a str>>,
        count: i64,
        handled_count: i64,
        total_duration_seconds: i64,
        mean_duration_seconds: Option<f64>,
        mean_seconds_to_handle: Option<f64>,
    }
    let key = row.key.as_ref();
    let status = || key?.status.and_then(view::status);
    let direction = || key?.direction.and_then(view::direction);
    let line = Line {
        bucket_start: key.and_then(|key| key.bucket_start).map(Rfc3339),
        status: layout.status.then(status),
        direction: layout.direction.then(direction),
        staff_uid: layout.staff.then(|| key?.staff_uid.as_deref()),
        count: row.count,
        handled_count: row.handled_count,
        total_duration_seconds: row.total_duration_seconds,
        mean_duration_seconds: row.mean_duration_seconds,
        mean_seconds_to_handle: row.mean_seconds_to_handle,
    };
    serde_json::to_writer(&mut *out, &line).map_err(io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// A row as plain fields, separated by tabs.
pub(super) fn plain(row: &VoiceCallStatsRow, layout: &Layout) -> String {
    let mean = |mean: Option<f64>| mean.map(|mean| format!("{mean:.3}"));
    let mut fields: Vec<_> = layout.key(row);
    fields.extend([
        Some(row.count.to_string()),
        Some(row.handled_count.to_string()),
        Some(row.total_duration_seconds.to_string()),
        mean(row.mean_duration_seconds),
        mean(row.mean_seconds_to_handle),
    ]);
    let fields: Vec<_> = fields.into_iter().map(Option::unwrap_or_default).collect();
    format!("{}\n", fields.join("\t"))
}

/// Bars are left out if there is less space than this.
const MIN_BAR: usize = 8;
const MAX_BAR: usize = 60;

const BAR: Style = AnsiColor::Cyan.on_default();
const DIM: Style = Style::new().dimmed();

/// The headings of the figures.
const TITLES: [&str; 5] = ["CALLS", "HANDLED", "MEAN", "TOTAL", "TO HANDLE"];

/// All rows as a table that fits the screen, with bars in the space that is left.
pub(super) fn table(rows: &[VoiceCallStatsRow], layout: &Layout, screen: Screen) -> String {
    let keys = layout.titles();
    let mut titles = keys.clone();
    titles.extend(TITLES);
    let mut cells: Vec<Vec<Cell>> = rows.iter().map(|row| line(row, layout)).collect();
    // A single bar has nothing to be compared with.
    let bar_width = match rows {
        [_] => 0,
        _ => bar_width(&titles, &cells, screen),
    };
    let most = rows.iter().map(|row| row.count).max().unwrap_or_default();
    for (cells, row) in cells.iter_mut().zip(rows) {
        cells.push(Cell {
            text: bar(row.count, most, bar_width),
            style: BAR,
        });
    }
    let bar_cell = titles.len();
    let count = keys.len();
    let buckets = usize::from(layout.bucket.is_some());
    let mut columns: Vec<_> = titles
        .iter()
        .enumerate()
        .map(|(cell, title)| Column {
            title,
            // Numbers and times are never truncated: a part of one would be misleading.
            min: if cell >= count || cell < buckets {
                usize::MAX
            } else {
                title.width()
            },
            // Columns to the left of the bar are kept; of the others the last is dropped first.
            weight: if cell <= count {
                200
            } else {
                u8::try_from(60 - cell).unwrap_or(1)
            },
            cell,
            is_number: cell >= count,
        })
        .collect();
    let bar = Column {
        title: "",
        min: MIN_BAR,
        weight: 1,
        cell: bar_cell,
        is_number: false,
    };
    columns.insert(count + 1, bar);
    Table::new(columns, screen).part(&cells)
}

fn line(row: &VoiceCallStatsRow, layout: &Layout) -> Vec<Cell> {
    let plain = |text: String| Cell {
        text,
        style: Style::new(),
    };
    let key = layout.key(row).into_iter().map(|value| match value {
        Some(value) => plain(value),
        None => Cell {
            text: "none".to_owned(),
            style: DIM,
        },
    });
    let mut cells: Vec<_> = key.collect();
    let total = (row.total_duration_seconds > 0).then_some(row.total_duration_seconds);
    cells.extend([
        plain(row.count.to_string()),
        plain(percent(row.handled_count, row.count)),
        plain(row.mean_duration_seconds.map(seconds).unwrap_or_default()),
        plain(
            total
                .map(|total| seconds(as_f64(total)))
                .unwrap_or_default(),
        ),
        plain(row.mean_seconds_to_handle.map(seconds).unwrap_or_default()),
    ]);
    cells
}

/// The width that the other columns leave; 0 if it is too little for bars.
fn bar_width(titles: &[&str], cells: &[Vec<Cell>], screen: Screen) -> usize {
    let widths = titles.iter().enumerate().filter_map(|(at, title)| {
        let widest = cells.iter().map(|row| row[at].text.width()).max()?;
        (widest > 0).then(|| widest.max(title.width()) + screen.gap())
    });
    let width = screen.width.saturating_sub(widths.sum());
    if width < MIN_BAR {
        0
    } else {
        width.min(MAX_BAR)
    }
}

/// A bar, with a resolution of an eighth of a character.
fn bar(count: i64, most: i64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let scaled = i128::from(count) * i128::try_from(width * 8).unwrap_or_default();
    let eighths = usize::try_from(scaled / i128::from(most.max(1))).unwrap_or_default();
    // A count above 0 always has a visible bar.
    let eighths = if width > 0 && count > 0 {
        eighths.max(1)
    } else {
        eighths
    };
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

fn percent(part: i64, whole: i64) -> String {
    let percent = 100.0 * as_f64(part) / as_f64(whole.max(1));
    format!("{percent:.0} %")
}

/// A duration in its two largest units.
fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and fractions no longer matter"
    )]
    let whole = seconds as u64;
    match whole {
        0..3_600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h {:02}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d {:02}h", whole / 86_400, whole / 3_600 % 24),
    }
}

#[expect(clippy::cast_precision_loss, reason = "the result is only shown")]
const fn as_f64(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_scaled_and_no_count_above_0_is_invisible() {
        assert_eq!(bar(100, 100, 10), "██████████");
        assert_eq!(bar(50, 100, 10), "█████");
        assert_eq!(bar(55, 100, 10), "█████▌");
        assert_eq!(bar(1, 1_000_000, 10), "▏");
        assert_eq!(bar(0, 100, 10), "");
        assert_eq!(bar(0, 0, 10), "");
        assert_eq!(bar(7, 7, 0), "");
        assert_eq!(bar(i64::MAX, i64::MAX, 10), "██████████");
    }

    #[test]
    fn durations_have_two_units() {
        for (length, text) in [
            (0.0, "0.0 s"),
            (59.94, "59.9 s"),
            (60.0, "1m 00s"),
            (119.9, "1m 59s"),
            (145.0, "2m 25s"),
            (3600.0, "1h 00m"),
            (86_399.0, "23h 59m"),
            (90_000.0, "1d 01h"),
        ] {
            assert_eq!(seconds(length), text);
        }
    }
}
