//! The flags for the fields of a call that clients can write.

use clap::Args;
use prost_types::Timestamp;

use super::time;
use crate::proto::{VoiceCall, VoiceCallDirection, VoiceCallStatus};

/// A flag for each field that can be written and can be absent.
#[derive(Debug, Args)]
#[command(next_help_heading = "Fields")]
pub(super) struct Fields {
    /// The status of the call.
    #[arg(long, value_name = "STATUS")]
    pub(super) status: Option<VoiceCallStatus>,

    /// The duration of the call, in seconds.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    duration: Option<i32>,

    /// The member of staff who answered the call.
    #[arg(long, value_name = "UID")]
    staff: Option<String>,

    /// The client who made the call.
    #[arg(long, value_name = "UID")]
    client: Option<String>,

    /// The number that the call was made from.
    #[arg(long, value_name = "NUMBER")]
    from: Option<String>,

    /// The number that the call was made to.
    #[arg(long, value_name = "NUMBER")]
    to: Option<String>,

    /// The URL of the recording.
    #[arg(long, value_name = "URL")]
    recording_url: Option<String>,

    /// A summary of the call.
    #[arg(long, value_name = "TEXT")]
    summary: Option<String>,

    /// The URL of a page about the call in another application.
    #[arg(long, value_name = "URL")]
    external_app_url: Option<String>,

    /// The member of staff who handled the call.
    #[arg(long, value_name = "UID")]
    handled_by: Option<String>,

    /// When the call was handled.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    handled_at: Option<Timestamp>,
}

impl Fields {
    /// A call with these fields and no others.
    pub(super) fn call(&self, uid: &str, direction: Option<VoiceCallDirection>) -> VoiceCall {
        VoiceCall {
            uid: uid.to_owned(),
            duration: self.duration,
            status: self.status.unwrap_or_default().into(),
            direction: direction.unwrap_or_default().into(),
            staff_uid: self.staff.clone(),
            client_uid: self.client.clone(),
            from_number: self.from.clone(),
            to_number: self.to.clone(),
            recording_url: self.recording_url.clone(),
            call_summary: self.summary.clone(),
            external_app_url: self.external_app_url.clone(),
            handled_by_staff_uid: self.handled_by.clone(),
            handled_at: self.handled_at,
            ..VoiceCall::default()
        }
    }

    /// The names in the API of the fields that are given.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let fields = [
            ("status", self.status.is_some()),
            ("duration", self.duration.is_some()),
            ("staff_uid", self.staff.is_some()),
            ("client_uid", self.client.is_some()),
            ("from_number", self.from.is_some()),
            ("to_number", self.to.is_some()),
            ("recording_url", self.recording_url.is_some()),
            ("call_summary", self.summary.is_some()),
            ("external_app_url", self.external_app_url.is_some()),
            ("handled_by_staff_uid", self.handled_by.is_some()),
            ("handled_at", self.handled_at.is_some()),
        ];
        let given = fields.into_iter().filter(|(_, is_given)| *is_given);
        given.map(|(name, _)| name).collect()
    }
}

/// A field that an update can clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Clearable {
    Duration,
    Staff,
    Client,
    From,
    To,
    RecordingUrl,
    Summary,
    ExternalAppUrl,
    HandledBy,
    HandledAt,
}

impl Clearable {
    /// The field's name in the API.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Staff => "staff_uid",
            Self::Client => "client_uid",
            Self::From => "from_number",
            Self::To => "to_number",
            Self::RecordingUrl => "recording_url",
            Self::Summary => "call_summary",
            Self::ExternalAppUrl => "external_app_url",
            Self::HandledBy => "handled_by_staff_uid",
            Self::HandledAt => "handled_at",
        }
    }
}
