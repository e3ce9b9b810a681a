//! What is wrong with a request: all violations, reported at once.

/// The most violations in the message of an error; its details list more.
const IN_SUMMARY: usize = 3;

/// The violations in a request: the path of a field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Violations(Vec<(String, String)>);

impl Violations {
    /// Adds a violation.
    pub fn push(&mut self, path: impl Into<String>, description: impl ToString) {
        self.0.push((path.into(), description.to_string()));
    }

    /// The number of violations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no violations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value, unless there are violations.
    pub(super) fn or<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// One line for the message: the first few, and how many more there are.
    #[must_use]
    pub fn summary(&self) -> String {
        let first = self.0.iter().take(IN_SUMMARY);
        let first: Vec<_> = first.map(|(path, what)| format!("{path} {what}")).collect();
        let first = first.join("; ");
        match self.0.len().saturating_sub(IN_SUMMARY) {
            0 => first,
            more => format!("{first}; and {more} more"),
        }
    }
}

impl IntoIterator for Violations {
    type Item = (String, String);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
