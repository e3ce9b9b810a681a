//! Which calls are meant, as a predicate. The store compiles the same filter to SQL; a property
//! test holds both against each other.
//!
//! A new field goes here, into `voice_call_filter.proto`, `api/request/filter`,
//! `store/read/filter_sql`, `cli/filter` and `tests/service/filter`, and into
//! `feed/subscriptions` if watchers by it should have queues. In `filter_sql` it goes into the
//! query and into `values`, `bounds` or the flags of `is_common`.

use super::{Call, Direction, Identifier, PhoneNumber, Seconds, Status, Timestamp, Uuid};

/// The most values a list in a filter has.
pub const MAX_VALUES: usize = 1000;

/// Which calls are meant. Every part that is set narrows (AND); an empty list
/// does not, a list with values is met by any of them (OR).
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Filter {
    /// These calls.
    pub uids: Vec<Uuid>,
    /// Answered by one of these.
    pub staff_uids: Vec<Identifier>,
    /// Made by one of these clients.
    pub client_uids: Vec<Identifier>,
    /// Handled by one of these.
    pub handled_by_staff_uids: Vec<Identifier>,
    /// In one of these statuses.
    pub statuses: Vec<Status>,
    /// In one of these directions.
    pub directions: Vec<Direction>,
    /// With one of these numbers on either side.
    pub numbers: Vec<PhoneNumber>,
    /// Made from one of these numbers.
    pub from_numbers: Vec<PhoneNumber>,
    /// Made to one of these numbers.
    pub to_numbers: Vec<PhoneNumber>,
    /// Created in this range.
    pub created: TimeRange,
    /// Last updated in this range.
    pub updated: TimeRange,
    /// At least this long. A call without a duration does not match.
    pub min_duration: Option<Seconds>,
    /// At most this long. A call without a duration does not match.
    pub max_duration: Option<Seconds>,
    /// With (true) or without (false) a time of handling.
    pub handled: Option<bool>,
    /// With (true) or without (false) a recording.
    pub has_recording: Option<bool>,
    /// Deleted calls too.
    pub show_deleted: bool,
}

/// A range of time: from `after`, inclusive, to `before`, exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct TimeRange {
    /// The first time in the range; `None`: no bound.
    pub after: Option<Timestamp>,
    /// The first time past the range; `None`: no bound.
    pub before: Option<Timestamp>,
}

impl TimeRange {
    fn contains(self, time: Timestamp) -> bool {
        self.after.is_none_or(|after| after <= time)
            && self.before.is_none_or(|before| time < before)
    }
}

impl Filter {
    /// Whether the call is meant.
    #[must_use]
    pub fn matches(&self, call: &Call) -> bool {
        let a = &call.attributes;
        (self.show_deleted || call.deleted_at.is_none())
            && any(&self.uids, Some(&call.uid))
            && any(&self.staff_uids, a.staff_uid.as_ref())
            && any(&self.client_uids, a.client_uid.as_ref())
            && any(&self.handled_by_staff_uids, a.handled_by_staff_uid.as_ref())
            && any(&self.statuses, Some(&a.status))
            && any(&self.directions, Some(&a.direction))
            && (any(&self.numbers, a.from_number.as_ref())
                || any(&self.numbers, a.to_number.as_ref()))
            && any(&self.from_numbers, a.from_number.as_ref())
            && any(&self.to_numbers, a.to_number.as_ref())
            && self.created.contains(call.created_at)
            && self.updated.contains(call.updated_at)
            && self
                .min_duration
                .is_none_or(|min| a.duration.is_some_and(|d| d >= min))
            && self
                .max_duration
                .is_none_or(|max| a.duration.is_some_and(|d| d <= max))
            && self
                .handled
                .is_none_or(|handled| handled == a.handled_at.is_some())
            && self
                .has_recording
                .is_none_or(|has| has == a.recording_url.is_some())
    }
}

/// Whether the list is empty or holds the value.
fn any<T: PartialEq>(list: &[T], value: Option<&T>) -> bool {
    list.is_empty() || value.is_some_and(|value| list.contains(value))
}
