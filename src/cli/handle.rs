//! `voicecall handle`.

use clap::Args;
use prost_types::Timestamp;

use super::{EXIT_CODES, failure::Failure, output::Output, service::Service, time};
use crate::proto::HandleVoiceCallRequest;

/// Mark a call as handled, and show it.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Handle {
    /// The uid of the call.
    #[arg(value_name = "UID")]
    uid: String,

    /// The member of staff who handled the call.
    #[arg(long, value_name = "UID")]
    by: String,

    /// When the call was handled. Default: now.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    at: Option<Timestamp>,

    /// Refuse the write unless the call is at this revision.
    #[arg(
        long,
        value_name = "REVISION",
        default_value_t = 0,
        hide_default_value = true
    )]
    expected_revision: i64,

    /// A UUID that makes the command safe to run again. Default: a new one.
    #[arg(
        long,
        value_name = "UUID",
        default_value = "",
        hide_default_value = true
    )]
    request_id: String,

    #[command(flatten)]
    service: Service,
}

impl Handle {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let client = self.service.client().await?;
        let request = HandleVoiceCallRequest {
            uid: self.uid.clone(),
            handled_by_staff_uid: self.by.clone(),
            handled_at: self.at,
            expected_revision: self.expected_revision,
            request_id: self.request_id.clone(),
        };
        let call = client.handle(request).await?;
        Output::show(&call, self.service.json)
    }
}
