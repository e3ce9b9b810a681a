//! `voicecall delete` and `voicecall undelete`.

use clap::Args;

use super::{EXIT_CODES, failure::Failure, output::Output, service::Service};
use crate::proto::{DeleteVoiceCallRequest, UndeleteVoiceCallRequest};

/// Delete a call, and show it. It can be undeleted.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Delete {
    /// Succeed even if the call is already deleted or does not exist.
    #[arg(long)]
    allow_missing: bool,

    #[command(flatten)]
    target: Target,
}

/// Restore a deleted call, and show it.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Undelete {
    #[command(flatten)]
    target: Target,
}

/// The arguments that both commands take.
#[derive(Debug, Args)]
struct Target {
    /// The uid of the call.
    #[arg(value_name = "UID")]
    uid: String,

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

impl Delete {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let target = &self.target;
        let request = DeleteVoiceCallRequest {
            uid: target.uid.clone(),
            expected_revision: target.expected_revision,
            request_id: target.request_id.clone(),
            allow_missing: self.allow_missing,
        };
        match target.service.client().await?.delete(request).await? {
            Some(call) => Output::show(&call, target.service.json),
            // Allowed by --allow-missing: a success, with nothing to show.
            None => Ok(()),
        }
    }
}

impl Undelete {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let target = &self.target;
        let request = UndeleteVoiceCallRequest {
            uid: target.uid.clone(),
            expected_revision: target.expected_revision,
            request_id: target.request_id.clone(),
        };
        let call = target.service.client().await?.undelete(request).await?;
        Output::show(&call, target.service.json)
    }
}
