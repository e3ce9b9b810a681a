//! The flags for a filter.

use clap::{ArgAction, Args};
use prost_types::Timestamp;

use super::time;
use crate::proto::{VoiceCallDirection, VoiceCallFilter, VoiceCallStatus};

/// The calls to select. A flag that takes a value can be repeated: any of the values matches.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Filter (a flag with a value can be repeated: any of the values matches)"
)]
pub(super) struct Filter {
    /// Calls with this uid.
    #[arg(long, value_name = "UID")]
    uid: Vec<String>,

    /// Calls answered by this member of staff.
    #[arg(long, value_name = "UID")]
    staff: Vec<String>,

    /// Calls made by this client.
    #[arg(long, value_name = "UID")]
    client: Vec<String>,

    /// Calls handled by this member of staff.
    #[arg(long, value_name = "UID")]
    handled_by: Vec<String>,

    /// Calls with this status.
    #[arg(long, value_name = "STATUS")]
    status: Vec<VoiceCallStatus>,

    /// Calls in this direction.
    #[arg(long, value_name = "DIRECTION")]
    direction: Vec<VoiceCallDirection>,

    /// Calls from or to this number.
    #[arg(long, value_name = "NUMBER")]
    number: Vec<String>,

    /// Calls from this number.
    #[arg(long, value_name = "NUMBER")]
    from: Vec<String>,

    /// Calls to this number.
    #[arg(long, value_name = "NUMBER")]
    to: Vec<String>,

    /// Calls created at this time or later.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    created_after: Option<Timestamp>,

    /// Calls created before this time.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    created_before: Option<Timestamp>,

    /// Calls last updated at this time or later.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    updated_after: Option<Timestamp>,

    /// Calls last updated before this time.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    updated_before: Option<Timestamp>,

    /// Calls that took at least this long.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    min_duration: Option<i32>,

    /// Calls that took at most this long.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    max_duration: Option<i32>,

    /// Calls that are handled.
    #[arg(long, overrides_with = "not_handled", action = ArgAction::SetTrue)]
    handled: bool,

    /// Calls that are not handled.
    #[arg(long, overrides_with = "handled", action = ArgAction::SetTrue)]
    not_handled: bool,

    /// Calls with a recording.
    #[arg(long, overrides_with = "not_recorded", action = ArgAction::SetTrue)]
    recorded: bool,

    /// Calls without a recording.
    #[arg(long, overrides_with = "recorded", action = ArgAction::SetTrue)]
    not_recorded: bool,

    /// Include deleted calls.
    #[arg(long)]
    deleted: bool,
}

impl Filter {
    /// The filter as a message.
    pub(super) fn message(&self) -> VoiceCallFilter {
        VoiceCallFilter {
            uids: self.uid.clone(),
            staff_uids: self.staff.clone(),
            client_uids: self.client.clone(),
            handled_by_staff_uids: self.handled_by.clone(),
            statuses: self.status.iter().map(|&one| one.into()).collect(),
            directions: self.direction.iter().map(|&one| one.into()).collect(),
            numbers: self.number.clone(),
            from_numbers: self.from.clone(),
            to_numbers: self.to.clone(),
            created_after: self.created_after,
            created_before: self.created_before,
            updated_after: self.updated_after,
            updated_before: self.updated_before,
            min_duration: self.min_duration,
            max_duration: self.max_duration,
            handled: either(self.handled, self.not_handled),
            has_recording: either(self.recorded, self.not_recorded),
            show_deleted: self.deleted,
        }
    }
}

/// The value of two opposite flags; `None` when neither is given.
fn either(yes: bool, no: bool) -> Option<bool> {
    (yes || no).then_some(yes)
}
