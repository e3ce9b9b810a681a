//! `voicecall delete` and `voicecall undelete`.

use clap::Args;

use super::{EXIT_CODES, failure::Failure, output::Output, service::Service};
use crate::proto::{DeleteVoiceCallRequest, UndeleteVoiceCallRequest};

/// Delete a call, and show it as it is then. It can be undeleted.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Delete {
    /// Succeed also if the call is deleted already or does not exist.
    #[arg(long)]
    allow_missing: bool,

    #[command(flatten)]
    which: Which,
}

/// Restore a deleted call, and show it as it is then.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Undelete {
    #[command(flatten)]
    which: Which,
}

/// What both need to know.
#[derive(Debug, Args)]
struct Which {
    /// Which call.
    #[arg(value_name = "UID")]
    uid: String,

    /// Refuse unless the call is at this revision.
    #[arg(
        long,
        value_name = "REVISION",
        default_value_t = 0,
        hide_default_value = true
    )]
    expected_revision: i64,

    /// A UUID that makes it safe to run the same command again. Default: a new one.
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
        let which = &self.which;
        let request = DeleteVoiceCallRequest {
            uid: which.uid.clone(),
            expected_revision: which.expected_revision,
            request_id: which.request_id.clone(),
            allow_missing: self.allow_missing,
        };
        match which.service.client()?.delete(request).await? {
            Some(call) => Output::show(&call, which.service.json),
            // Asked for, so no failure; and nothing to show.
            None => Ok(()),
        }
    }
}

impl Undelete {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let which = &self.which;
        let request = UndeleteVoiceCallRequest {
            uid: which.uid.clone(),
            expected_revision: which.expected_revision,
            request_id: which.request_id.clone(),
        };
        let call = which.service.client()?.undelete(request).await?;
        Output::show(&call, which.service.json)
    }
}
