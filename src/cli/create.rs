//! `voicecall create`.

use clap::Args;
use prost_types::Timestamp;

use super::{EXIT_CODES, failure::Failure, fields::Fields, output::Output, service::Service, time};
use crate::proto::{CreateVoiceCallRequest, VoiceCallDirection};

/// Create a call, and show it.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Create {
    /// Whether the call came in or went out.
    #[arg(long, value_name = "DIRECTION", help_heading = "Fields")]
    direction: VoiceCallDirection,

    #[command(flatten)]
    fields: Fields,

    /// The uid of the call, a UUID. Default: the service generates one.
    #[arg(
        long,
        value_name = "UID",
        default_value = "",
        hide_default_value = true,
        help_heading = "Fields"
    )]
    uid: String,

    /// When the call was created. Default: now.
    #[arg(long, value_name = "TIME", value_parser = time::parse, help_heading = "Fields")]
    created_at: Option<Timestamp>,

    /// Check the request and show the result, but write nothing.
    #[arg(long, help_heading = None::<&str>)]
    validate_only: bool,

    /// A UUID that makes the command safe to run again. Default: a new one.
    #[arg(
        long,
        value_name = "UUID",
        default_value = "",
        hide_default_value = true, help_heading = None::<&str>)]
    request_id: String,

    #[command(flatten)]
    service: Service,
}

impl Create {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let client = self.service.client().await?;
        let mut call = self.fields.call(&self.uid, Some(self.direction));
        call.created_at = self.created_at;
        let request = CreateVoiceCallRequest {
            voice_call: Some(call),
            request_id: self.request_id.clone(),
            validate_only: self.validate_only,
        };
        let call = client.create(request).await?;
        Output::show(&call, self.service.json)
    }
}
