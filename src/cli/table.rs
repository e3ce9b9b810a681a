//! Tables that fit the width of a terminal: the least important columns shrink first.

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::screen::Screen;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// The column shrinks to this width at first. If the table is still too wide, the column is
    /// left out, or shrinks further if it is essential.
    pub(super) min: usize,
    /// Columns with less weight shrink first.
    pub(super) weight: u8,
    /// The index of its cell in a row.
    pub(super) cell: usize,
    /// Numbers are aligned to the right.
    pub(super) is_number: bool,
}

/// The content of a row in a column.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

/// From this weight on, a column is essential.
pub(super) const ESSENTIAL: u8 = 80;

/// Below this width even an essential column is left out.
const LEAST: usize = 8;

/// A table that is written in parts.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    screen: Screen,
    /// The width of each column in the last part; `None` if it is left out. Empty before the
    /// first part.
    widths: Vec<Option<usize>>,
}

const BOLD: Style = Style::new().bold();

impl Table {
    pub(super) fn new(columns: Vec<Column>, screen: Screen) -> Self {
        Self {
            columns,
            screen,
            widths: Vec::new(),
        }
    }

    /// Formats the next rows, with widths of their own. They get a heading unless the widths are
    /// those of the part before. A column without any text is left out.
    pub(super) fn part(&mut self, rows: &[Vec<Cell>]) -> String {
        let mut text = String::new();
        let natural = self.columns.iter().map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column.cell));
            let widest = cells.map(|cell| cell.text.width()).max().unwrap_or(0);
            (widest > 0).then(|| widest.max(column.title.width()))
        });
        let widths = fit(&self.columns, natural.collect(), self.screen);
        if self.widths != widths {
            self.widths = widths;
            let heading = self.columns.iter().map(|column| (column.title, BOLD));
            let heading: Vec<_> = heading.collect();
            self.line(&heading, &mut text);
        }
        for row in rows {
            let cells = self
                .columns
                .iter()
                .map(|column| match row.get(column.cell) {
                    Some(cell) => (cell.text.as_str(), cell.style),
                    None => ("", Style::new()),
                });
            let cells: Vec<_> = cells.collect();
            self.line(&cells, &mut text);
        }
        text
    }

    fn line(&self, cells: &[(&str, Style)], text: &mut String) {
        let mut pending = 0;
        let mut is_first = true;
        for ((column, width), (cell, style)) in self.columns.iter().zip(&self.widths).zip(cells) {
            let Some(width) = *width else { continue };
            if !is_first {
                pending += self.screen.gap();
            }
            is_first = false;
            let shown = truncated(cell, width);
            let space = width.saturating_sub(shown.width());
            let (before, after) = if column.is_number {
                (space, 0)
            } else {
                (0, space)
            };
            if shown.is_empty() {
                pending += width;
                continue;
            }
            // Lines have no trailing spaces.
            text.extend(std::iter::repeat_n(' ', pending + before));
            text.push_str(&self.screen.paint(&shown, *style));
            pending = after;
        }
        text.push('\n');
    }
}

/// The width of each column, so that the table fits the screen; `None` for a column that is
/// left out.
fn fit(columns: &[Column], natural: Vec<Option<usize>>, screen: Screen) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.retain(|&at| natural[at].is_some());
    order.sort_by_key(|&at| columns[at].weight);
    let mut widths = natural.clone();
    for &at in &order {
        let over = excess(&widths, screen);
        let least = columns[at].min;
        widths[at] = widths[at].map(|width| width.saturating_sub(over).max(least.min(width)));
    }
    for &at in order.iter().take(order.len().saturating_sub(1)) {
        let over = excess(&widths, screen);
        widths[at] = widths[at].filter(|_| over == 0).or_else(|| {
            let rest = widths[at]?.checked_sub(over)?;
            (columns[at].weight >= ESSENTIAL && rest >= LEAST).then_some(rest)
        });
    }
    // Columns that were left out may have freed more space than was needed.
    for &at in order.iter().rev() {
        let Some(width) = widths[at] else { continue };
        widths[at] = natural[at];
        let over = excess(&widths, screen);
        widths[at] = natural[at].map(|natural| natural.saturating_sub(over).max(width));
    }
    widths
}

/// By how much the columns exceed the width of the screen.
fn excess(widths: &[Option<usize>], screen: Screen) -> usize {
    let gaps = widths.iter().flatten().count().saturating_sub(1) * screen.gap();
    let sum: usize = widths.iter().flatten().sum();
    (sum + gaps).saturating_sub(screen.width)
}

/// The text truncated to `width` columns of a terminal, with an ellipsis.
fn truncated(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 0;
    for c in text.chars() {
        let more = c.width().unwrap_or(0);
        if used + more + 1 > width {
            break;
        }
        shown.push(c);
        used += more;
    }
    let mut shown = shown.trim_end().to_owned();
    shown.push('…');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(title: &'static str, cell: usize, min: usize, weight: u8) -> Column {
        Column {
            title,
            min,
            weight,
            cell,
            is_number: false,
        }
    }

    fn table(width: usize, rows: &[&[&str]]) -> String {
        let columns = vec![
            column("A", 0, 4, 9),
            column("B", 1, 4, 2),
            column("C", 2, 4, 1),
        ];
        let screen = Screen {
            width,
            colours: false,
        };
        let cell = |text: &&str| Cell {
            text: (*text).to_owned(),
            ..Cell::default()
        };
        let rows: Vec<Vec<Cell>> = rows
            .iter()
            .map(|row| row.iter().map(cell).collect())
            .collect();
        Table::new(columns, screen).part(&rows)
    }

    #[test]
    fn the_least_important_columns_shrink_first_and_are_then_left_out() {
        let rows: &[&[&str]] = &[&["aaaa", "bbbbbbbb", "cccccccc"]];
        for (width, line) in [
            (40, "aaaa  bbbbbbbb  cccccccc"),
            (24, "aaaa bbbbbbbb cccccccc"),
            (20, "aaaa bbbbbbbb ccccc…"),
            (17, "aaaa bbbbbb… ccc…"),
            (15, "aaaa bbbb… ccc…"),
            (13, "aaaa bbbbbbbb"),
            (9, "aaaa bbb…"),
            (8, "aaaa"),
            (2, "aaaa"),
        ] {
            let text = table(width, rows);
            let shown = text.lines().nth(1).expect("a row").replace("  ", " ");
            assert_eq!(shown, line.replace("  ", " "), "{width}");
            let widest = text.lines().map(UnicodeWidthStr::width).max();
            assert!(width < 4 || widest <= Some(width), "{width}: {text}");
        }
    }

    #[test]
    fn wide_characters_count_twice_and_are_not_cut_in_half() {
        let rows: &[&[&str]] = &[&["日本語日", "x"], &["e\u{301}tat", "y"]];
        assert_eq!(
            table(40, rows),
            "A        B\n日本語日 x\ne\u{301}tat     y\n"
        );
        assert_eq!(truncated("日本語", 6), "日本語");
        assert_eq!(truncated("日本語", 5), "日本…");
        assert_eq!(truncated("日本語", 4), "日…");
    }

    #[test]
    fn lines_end_with_their_last_text() {
        let rows: &[&[&str]] = &[&["a", "", ""]];
        assert!(table(40, rows).lines().all(|line| line.trim_end() == line));
    }
}
