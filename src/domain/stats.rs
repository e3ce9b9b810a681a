//! How calls are grouped to be counted, and what is counted.

use super::{Direction, Identifier, Status, Timestamp};

/// What the calls of a group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Groups {
    /// The length of time that they were created in.
    pub bucket: Option<Bucket>,
    /// The status.
    pub status: bool,
    /// The direction.
    pub direction: bool,
    /// The member of staff.
    pub staff: bool,
}

/// A length of time in a calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Bucket {
    Hour,
    Day,
    /// From Monday on.
    Week,
    Month,
}

/// Which group it is: the parts that [`Groups`] names, in the order of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupKey {
    /// When the length of time begins.
    pub bucket_start: Option<Timestamp>,
    /// The status.
    pub status: Option<Status>,
    /// The direction.
    pub direction: Option<Direction>,
    /// The member of staff; when grouped by staff, `None` stands for calls
    /// without one, and comes last.
    pub staff_uid: Option<Identifier>,
}

/// The counts of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Which.
    pub key: GroupKey,
    /// Its calls.
    pub count: i64,
    /// Those that have been handled.
    pub handled_count: i64,
    /// The sum of the durations there are.
    pub total_duration_seconds: i64,
    /// Their mean, if there are any.
    pub mean_duration_seconds: Option<f64>,
    /// The mean time from created to handled, over those that have been handled.
    pub mean_seconds_to_handle: Option<f64>,
}
