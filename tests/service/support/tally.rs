//! Counts of a long test: responses by status code, events, and violations of what
//! the service promises. Violations are collected rather than panicking at the first
//! one, so that a failed run still reports all its counts.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard},
};

use tonic::Code;

/// How many violations of each kind are printed, and how much of each.
const SHOWN: usize = 5;
const SHOWN_CHARS: usize = 500;

/// The counts, shared by all tasks of a test.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// By kind of request and status code.
    answers: BTreeMap<(&'static str, String), u64>,
    counts: BTreeMap<&'static str, u64>,
    /// By kind: how many, and the first few.
    violations: BTreeMap<&'static str, (u64, Vec<String>)>,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().expect("no panic while it is locked")
    }

    /// Counts a response.
    pub(crate) fn answer(&self, kind: &'static str, code: Code) {
        let key = (kind, format!("{code:?}"));
        *self.counts().answers.entry(key).or_default() += 1;
    }

    /// Counts an event that is allowed.
    pub(crate) fn add(&self, what: &'static str, count: u64) {
        *self.counts().counts.entry(what).or_default() += count;
    }

    /// Counts the most of something.
    pub(crate) fn at_most(&self, what: &'static str, most: u64) {
        let mut counts = self.counts();
        let known = counts.counts.entry(what).or_default();
        *known = most.max(*known);
    }

    /// The count of an event.
    pub(crate) fn count(&self, what: &str) -> u64 {
        self.counts().counts.get(what).copied().unwrap_or(0)
    }

    /// Records something that must not happen.
    pub(crate) fn violation(&self, kind: &'static str, details: impl FnOnce() -> String) {
        let mut counts = self.counts();
        let (count, shown) = counts.violations.entry(kind).or_default();
        *count += 1;
        if shown.len() < SHOWN {
            shown.push(details().chars().take(SHOWN_CHARS).collect());
        }
    }

    /// Fails the test, with all counts, if there was a violation.
    pub(crate) fn assert_no_violation(&self) {
        let is_clean = self.counts().violations.is_empty();
        assert!(is_clean, "{self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        writeln!(f, "responses:")?;
        let mut kinds: BTreeMap<&str, String> = BTreeMap::new();
        for ((kind, code), count) in &counts.answers {
            let line = kinds.entry(kind).or_default();
            *line += &format!(" {code} {count}");
        }
        for (kind, line) in kinds {
            writeln!(f, "  {kind}:{line}")?;
        }
        writeln!(f, "counts:")?;
        for (what, count) in &counts.counts {
            writeln!(f, "  {count} {what}")?;
        }
        writeln!(f, "violations: {}", counts.violations.len())?;
        for (kind, (count, shown)) in &counts.violations {
            writeln!(f, "  {count} times: {kind}")?;
            for one in shown {
                writeln!(f, "    {one}")?;
            }
        }
        Ok(())
    }
}
