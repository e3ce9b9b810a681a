//! `voicecall watch` and `voicecall history`.

use std::pin::pin;

use clap::Args;
use futures_util::TryStreamExt;

use super::{EXIT_CODES, events::EventOutput, failure::Failure, filter::Filter, service::Service};
use crate::{
    client::Watched,
    proto::{
        self, ListVoiceCallChangesRequest, Live, Snapshot, VoiceCallFilter, WatchVoiceCallsRequest,
        list_voice_call_changes_request, watch_voice_calls_request::Start,
    },
};

/// Watch changes to calls, one line for each change, until interrupted.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Watch {
    /// Begin with the calls as they are now.
    #[arg(long, group = "start", help_heading = None::<&str>)]
    snapshot: bool,

    /// Begin after this revision; 0 begins with the first change.
    #[arg(long, group = "start", value_name = "REVISION", help_heading = None::<&str>)]
    after: Option<i64>,

    /// Begin after the position of this resume token.
    #[arg(long, group = "start", value_name = "TOKEN", help_heading = None::<&str>)]
    resume: Option<String>,

    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    service: Service,
}

impl Watch {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let client = self.service.client().await?;
        let start = match (self.snapshot, self.after, &self.resume) {
            (true, ..) => Start::Snapshot(Snapshot {}),
            (_, Some(revision), _) => Start::AfterRevision(revision),
            (_, _, Some(token)) => Start::ResumeToken(token.clone()),
            _ => Start::Live(Live {}),
        };
        let request = WatchVoiceCallsRequest {
            filter: Some(self.filter.message()),
            start: Some(start),
            ..WatchVoiceCallsRequest::default()
        };
        let mut output = EventOutput::new(self.service.json);
        let mut watch = pin!(client.watch(request));
        while let Some(watched) = watch.try_next().await? {
            match watched {
                Watched::Call(call) => output.call(&call)?,
                Watched::Event(event) => output.event(&event)?,
                Watched::Restarted => output.note("RESTARTED", "the snapshot starts again")?,
                Watched::Complete {
                    revision,
                    resume_token,
                } => {
                    output.note(
                        "COMPLETE",
                        &format!("snapshot complete at revision {revision}"),
                    )?;
                    output.position(&resume_token)?;
                }
                Watched::Position { resume_token, .. } => output.position(&resume_token)?,
            }
        }
        Ok(())
    }
}

/// Show the history of a call, oldest first, one line for each change.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct History {
    /// The uid of the call.
    #[arg(value_name = "UID")]
    uid: String,

    #[command(flatten)]
    service: Service,
}

impl History {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let client = self.service.client().await?;
        let mut output = EventOutput::new(self.service.json);
        let mut start = None;
        loop {
            let request = ListVoiceCallChangesRequest {
                filter: Some(VoiceCallFilter {
                    uids: vec![self.uid.clone()],
                    show_deleted: true,
                    ..VoiceCallFilter::default()
                }),
                start,
                page_size: 1000,
                ..ListVoiceCallChangesRequest::default()
            };
            let page: proto::ListVoiceCallChangesResponse = client.changes(request).await?;
            for event in &page.events {
                output.event(event)?;
            }
            if page.caught_up {
                return Ok(());
            }
            start = Some(list_voice_call_changes_request::Start::ResumeToken(
                page.resume_token,
            ));
        }
    }
}
