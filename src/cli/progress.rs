//! The progress bar of long commands, on standard error if that is a terminal.

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// With a known total: a bar, the rate, and the time that is left.
const WITH_TOTAL: &str = "{wide_bar} {percent:>3} %  {human_pos} calls  {rate}/s  {eta} left";
/// Without a known total.
const WITHOUT_TOTAL: &str = "{spinner} {human_pos} calls  {rate}/s  {elapsed}";

/// The progress bar; hidden if standard error is not a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    has_total: bool,
}

impl Progress {
    pub(super) fn new(is_shown: bool) -> Self {
        let bar = if is_shown {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(style(WITHOUT_TOTAL));
        Self {
            bar,
            has_total: false,
        }
    }

    /// Whether the bar is visible.
    pub(super) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Sets the total, which may be an estimate.
    pub(super) fn set_total(&mut self, total: u64) {
        if !self.has_total {
            self.has_total = true;
            self.bar.set_style(style(WITH_TOTAL));
        }
        self.bar.set_length(total);
    }

    /// Sets how many are done.
    pub(super) fn set(&self, done: u64) {
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    /// Removes the bar before the last messages.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants that parse; the default is never used.
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key(
        "rate",
        |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            // A rate that cannot be written is not shown.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the cast saturates"
            )]
            let _ = write!(text, "{}", HumanCount(state.per_sec() as u64));
        },
    )
}
