//! `voicecall update`.

use clap::Args;
use prost_types::FieldMask;

use super::{
    EXIT_CODES,
    failure::Failure,
    fields::{Clearable, Fields},
    output::Output,
    service::Service,
};
use crate::proto::{UpdateVoiceCallRequest, VoiceCallDirection};

/// Update a call, and show it. Only the given fields change.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Update {
    /// The uid of the call.
    #[arg(value_name = "UID")]
    uid: String,

    /// Whether the call came in or went out.
    #[arg(long, value_name = "DIRECTION", help_heading = "Fields")]
    direction: Option<VoiceCallDirection>,

    #[command(flatten)]
    fields: Fields,

    /// Clear this field. Can be repeated.
    #[arg(long, value_name = "FIELD", help_heading = "Fields")]
    clear: Vec<Clearable>,

    /// Refuse the write unless the call is at this revision.
    #[arg(
        long,
        value_name = "REVISION",
        default_value_t = 0,
        hide_default_value = true, help_heading = None::<&str>)]
    expected_revision: i64,

    /// Create the call if it does not exist; this needs --direction.
    #[arg(long, help_heading = None::<&str>)]
    allow_missing: bool,

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

impl Update {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let client = self.service.client().await?;
        let request = UpdateVoiceCallRequest {
            voice_call: Some(self.fields.call(&self.uid, self.direction)),
            update_mask: Some(FieldMask {
                paths: self.paths()?,
            }),
            expected_revision: self.expected_revision,
            allow_missing: self.allow_missing,
            request_id: self.request_id.clone(),
            validate_only: self.validate_only,
        };
        let call = client.update(request).await?;
        Output::show(&call, self.service.json)
    }

    /// The update mask: the fields that are given, and those to clear.
    fn paths(&self) -> Result<Vec<String>, Failure> {
        let mut paths = self.fields.given();
        if self.direction.is_some() {
            paths.push("direction");
        }
        for field in &self.clear {
            let name = field.name();
            if self.fields.given().contains(&name) {
                return Err(Failure::Usage(format!(
                    "{name} cannot be both set and cleared"
                )));
            }
            if !paths.contains(&name) {
                paths.push(name);
            }
        }
        if paths.is_empty() {
            let what =
                "nothing to update: name a field, such as --status missed or --clear summary";
            return Err(Failure::Usage(what.to_owned()));
        }
        Ok(paths.into_iter().map(str::to_owned).collect())
    }
}
