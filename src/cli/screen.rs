//! The terminal: its width, and whether it has colours.

use anstyle::Style;

/// From this width on, a list has a column for each field.
const WIDE: usize = 140;

/// The terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    pub(super) width: usize,
    pub(super) colours: bool,
}

impl Screen {
    pub(super) const fn is_wide(self) -> bool {
        self.width >= WIDE
    }

    /// The space between two columns.
    pub(super) const fn gap(self) -> usize {
        if self.is_wide() { 2 } else { 1 }
    }

    /// The text in this style, if the terminal has styles.
    pub(super) fn paint(self, text: &str, style: Style) -> String {
        if self.colours {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}
