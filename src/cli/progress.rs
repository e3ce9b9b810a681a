//! How far a long command has come, on the standard error of a terminal.

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// With a total: a bar, the rate, and the time that is left.
const WITH_TOTAL: &str = "{wide_bar} {percent:>3} %  {human_pos} calls  {rate}/s  {eta} left";
/// Without.
const WITHOUT_TOTAL: &str = "{spinner} {human_pos} calls  {rate}/s  {elapsed}";

/// The bar; nothing if standard error is no terminal.
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

    /// Whether anybody sees it.
    pub(super) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// How many there are in all, as far as is known now.
    pub(super) fn set_total(&mut self, total: u64) {
        if !self.has_total {
            self.has_total = true;
            self.bar.set_style(style(WITH_TOTAL));
        }
        self.bar.set_length(total);
    }

    /// How many are done.
    pub(super) fn set(&self, done: u64) {
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    /// Makes room for what is said at the end.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse would show its default.
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key(
        "rate",
        |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            // What cannot be written is not shown.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it saturates"
            )]
            let _ = write!(text, "{}", HumanCount(state.per_sec() as u64));
        },
    )
}
