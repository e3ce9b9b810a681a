//! `voicecall get`.

use clap::Args;

use super::{EXIT_CODES, failure::Failure, output::Output, service::Service};
use crate::{
    client::Client,
    proto::{BatchGetVoiceCallsRequest, GetVoiceCallRequest},
};

/// The most uids in one request.
const BATCH: usize = 1000;

/// Show calls.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Get {
    /// The uids of the calls. Calls that do not exist are reported on standard error.
    #[arg(required = true, value_name = "UID")]
    uids: Vec<String>,

    /// Wait until the service has reached this revision.
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "REVISION"
    )]
    min_revision: i64,

    #[command(flatten)]
    service: Service,
}

impl Get {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let client = self.service.client().await?;
        let mut output = Output::new(self.service.json);
        let missing = match self.uids.as_slice() {
            [uid] => {
                let request = GetVoiceCallRequest {
                    uid: uid.clone(),
                    min_revision: self.min_revision,
                };
                output.call(&client.get(request).await?)?;
                Vec::new()
            }
            uids => self.several(&client, uids, &mut output).await?,
        };
        output.finish()?;
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Failure::Missing(missing))
        }
    }

    /// Shows the calls that exist, and returns the uids of the others.
    async fn several(
        &self,
        client: &Client,
        uids: &[String],
        output: &mut Output,
    ) -> Result<Vec<String>, Failure> {
        let mut missing = Vec::new();
        for chunk in uids.chunks(BATCH) {
            let mut remaining = chunk.to_vec();
            while !remaining.is_empty() {
                let request = BatchGetVoiceCallsRequest {
                    uids: remaining,
                    min_revision: self.min_revision,
                };
                let response = client.batch_get(request).await?;
                for call in &response.voice_calls {
                    output.call(call)?;
                }
                missing.extend(response.missing_uids);
                remaining = response.remaining_uids;
            }
        }
        Ok(missing)
    }
}
