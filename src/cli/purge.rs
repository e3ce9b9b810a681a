//! `voicecall purge`.

use clap::Args;

use super::{EXIT_CODES, failure::Failure, service::Service};
use crate::proto::PurgeVoiceCallRequest;

/// Erase a call permanently, also from the change log. This cannot be undone, and the uid
/// cannot be used again.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Purge {
    /// The uid of the call.
    #[arg(value_name = "UID")]
    uid: String,

    /// Confirm the purge.
    #[arg(long)]
    yes: bool,

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

impl Purge {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        if !self.yes {
            return Err(Failure::Usage(
                "a purge cannot be undone: pass --yes to confirm it".to_owned(),
            ));
        }
        let request = PurgeVoiceCallRequest {
            uid: self.uid.clone(),
            request_id: self.request_id.clone(),
        };
        self.service.client().await?.purge(request).await?;
        Ok(())
    }
}
