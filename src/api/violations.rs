//! What is wrong with a request: every field at fault, said at once.

/// What is wrong with a request: paths and what they break.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Violations(Vec<(String, String)>);

impl Violations {
    /// Adds one.
    pub fn push(&mut self, path: impl Into<String>, description: impl ToString) {
        self.0.push((path.into(), description.to_string()));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
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

    /// One line for people: the first, and how many more.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.0.as_slice() {
            [] => "the request is not valid".into(),
            [(path, description)] => format!("{path} {description}"),
            [(path, description), more @ ..] => {
                format!("{path} {description} (and {} more)", more.len())
            }
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
