//! What a change means to a view: the calls that a filter matches and its caller may see.

use std::sync::Arc;

use super::{Call, Change, ChangeKind, Filter, Narrowing};

/// The calls that a request is about: those that its filter matches, of those that its caller may
/// see.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct View {
    /// What the client asks for.
    pub filter: Filter,
    /// What the caller may see; `None`: all calls.
    pub narrowing: Option<Arc<Narrowing>>,
}

/// What a change means to a view, and how much of it may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What it means.
    pub event_type: EventType,
    /// How much may be told.
    pub disclosure: Disclosure,
}

/// What a change means to a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// The call is in the view now and was not before.
    Entered,
    /// The call was in the view and still is.
    Updated,
    /// The call left the view. It is not deleted, or the caller may not know.
    Exited,
    /// The call was in the view and is deleted now.
    Deleted,
    /// The call was erased.
    Purged,
}

/// How much of a change a caller may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disclosure {
    /// All of it.
    Whole,
    /// What the call is now, and not what it was before.
    After,
    /// Which call it is, and when it changed.
    CallAndTime,
}

impl View {
    /// Whether the call is in the view.
    #[must_use]
    pub fn matches(&self, call: &Call) -> bool {
        self.covers(call) && self.filter.matches(call)
    }

    /// Whether the caller may see the call.
    fn covers(&self, call: &Call) -> bool {
        let narrowing = self.narrowing.as_ref();
        narrowing.is_none_or(|narrowing| narrowing.covers(&call.attributes))
    }

    /// What the change means to the view; `None`: nothing. It follows from the change alone, so
    /// that it is the same for every reader at any time.
    #[must_use]
    pub fn event(&self, change: &Change) -> Option<Event> {
        let Some(after) = &change.after else {
            return self.purge(change);
        };
        let before = change.before.as_deref();
        let is_covered = self.covers(after);
        let was_covered = before.is_some_and(|before| self.covers(before));
        let is_in = is_covered && self.filter.matches(after);
        let was_in = was_covered && before.is_some_and(|before| self.filter.matches(before));
        let event_type = match (was_in, is_in) {
            (false, false) => return None,
            (false, true) => EventType::Entered,
            (true, true) => EventType::Updated,
            (true, false) if is_covered && after.deleted_at.is_some() => EventType::Deleted,
            (true, false) => EventType::Exited,
        };
        let disclosure = match (was_covered || before.is_none(), is_covered) {
            (true, true) => Disclosure::Whole,
            (false, true) => Disclosure::After,
            (_, false) => Disclosure::CallAndTime,
        };
        Some(Event {
            event_type,
            disclosure,
        })
    }

    /// What a change without content means: the purge is told to all whose filter does not exclude
    /// the call, because the content that said whose call it was is erased.
    fn purge(&self, change: &Change) -> Option<Event> {
        let uids = &self.filter.uids;
        let is_told = change.kind == Some(ChangeKind::Purged)
            && (uids.is_empty() || uids.contains(&change.uid));
        is_told.then_some(Event {
            event_type: EventType::Purged,
            disclosure: match self.narrowing {
                None => Disclosure::Whole,
                Some(_) => Disclosure::CallAndTime,
            },
        })
    }
}
