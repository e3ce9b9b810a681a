//! What a change means to a view: the calls that a filter matches.

use super::{Change, ChangeKind, Filter};

/// What a change means to a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// The call is in the view now and was not before.
    Entered,
    /// The call was in the view and still is.
    Updated,
    /// The call left the view, and is not deleted.
    Exited,
    /// The call was in the view and is deleted now.
    Deleted,
    /// The call was erased.
    Purged,
}

impl Filter {
    /// What the change means to the calls that this filter matches; `None`:
    /// nothing. It follows from the change alone, so that it is the same for every reader at any
    /// time.
    #[must_use]
    pub fn event(&self, change: &Change) -> Option<EventType> {
        let Some(after) = &change.after else {
            let purge = change.kind == Some(ChangeKind::Purged)
                && (self.uids.is_empty() || self.uids.contains(&change.uid));
            return purge.then_some(EventType::Purged);
        };
        let before = change.before.as_ref();
        let was_in = before.is_some_and(|before| self.matches(before));
        match (was_in, self.matches(after)) {
            (false, false) => None,
            (false, true) => Some(EventType::Entered),
            (true, true) => Some(EventType::Updated),
            (true, false) if after.deleted_at.is_some() => Some(EventType::Deleted),
            (true, false) => Some(EventType::Exited),
        }
    }
}
