//! The flags that stand for a filter: which calls are meant.

use clap::{ArgAction, Args};
use prost_types::Timestamp;

use super::time;
use crate::proto::{VoiceCallDirection, VoiceCallFilter, VoiceCallStatus};

/// Which calls. A flag that takes values can be repeated: any of them matches.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which calls (flags with values can be repeated: any of them)")]
pub(super) struct Filter {
    /// With this uid.
    #[arg(long, value_name = "UID")]
    uid: Vec<String>,

    /// Answered by this member of staff.
    #[arg(long, value_name = "UID")]
    staff: Vec<String>,

    /// Made by this client.
    #[arg(long, value_name = "UID")]
    client: Vec<String>,

    /// Handled by this member of staff.
    #[arg(long, value_name = "UID")]
    handled_by: Vec<String>,

    /// In this status.
    #[arg(long, value_name = "STATUS")]
    status: Vec<VoiceCallStatus>,

    /// In this direction.
    #[arg(long, value_name = "DIRECTION")]
    direction: Vec<VoiceCallDirection>,

    /// With this number on either side.
    #[arg(long, value_name = "NUMBER")]
    number: Vec<String>,

    /// Made from this number.
    #[arg(long, value_name = "NUMBER")]
    from: Vec<String>,

    /// Made to this number.
    #[arg(long, value_name = "NUMBER")]
    to: Vec<String>,

    /// Created at this time or later.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    created_after: Option<Timestamp>,

    /// Created before this time.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    created_before: Option<Timestamp>,

    /// Last updated at this time or later.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    updated_after: Option<Timestamp>,

    /// Last updated before this time.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    updated_before: Option<Timestamp>,

    /// That took at least this long.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    min_duration: Option<i32>,

    /// That took at most this long.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    max_duration: Option<i32>,

    /// That are handled.
    #[arg(long, overrides_with = "not_handled", action = ArgAction::SetTrue)]
    handled: bool,

    /// That are not handled.
    #[arg(long, overrides_with = "handled", action = ArgAction::SetTrue)]
    not_handled: bool,

    /// That have a recording.
    #[arg(long, overrides_with = "not_recorded", action = ArgAction::SetTrue)]
    recorded: bool,

    /// That have no recording.
    #[arg(long, overrides_with = "recorded", action = ArgAction::SetTrue)]
    not_recorded: bool,

    /// Deleted ones too.
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

/// What two opposite flags say together.
fn either(yes: bool, no: bool) -> Option<bool> {
    (yes || no).then_some(yes)
}
