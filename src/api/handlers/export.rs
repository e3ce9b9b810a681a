//! The stream of ExportVoiceCalls: the calls as they all were at one revision, in
//! chunks, at the client's pace.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{Stream, stream};
use tonic::Status;

use crate::{
    api::{
        context::StopSignals,
        error::Error,
        request::{commands, filter},
        response::{budget::ResponseBudget, calls},
        violations::Violations,
    },
    domain::{Call, Filter, Revision},
    feed::{Feed, ReadAhead},
    proto,
};

/// The most calls that are read at once.
const MAX_PAGE_LEN: usize = 2000;

/// A validated request for an export.
pub(crate) struct ExportQuery {
    filter: Filter,
    pub(crate) min_revision: Revision,
}

/// Validates the request.
pub(crate) fn parse(request: proto::ExportVoiceCallsRequest) -> Result<ExportQuery, Violations> {
    let mut violations = Violations::default();
    let filter = filter::filter(request.filter, &mut violations);
    let min_revision = commands::min_revision(request.min_revision, &mut violations);
    Ok(ExportQuery {
        filter: violations.or(Some(filter))?,
        min_revision,
    })
}

/// Exports the calls, until all are sent or either side ends the stream.
pub(crate) fn run(
    feed: &Feed,
    query: ExportQuery,
    stop: StopSignals,
) -> impl Stream<Item = Result<proto::ExportVoiceCallsResponse, Status>> + use<> {
    let export = Export {
        pages: feed.snapshot_ahead(Arc::new(query.filter), query.min_revision, MAX_PAGE_LEN),
        unsent: VecDeque::new(),
        revision: None,
        stop,
    };
    stream::unfold(Some(export), async |export| {
        let mut export = export?;
        match export.next().await {
            Ok(None) => None,
            Ok(Some(chunk)) => Some((Ok(chunk), Some(export))),
            Err(error) => Some((Err(error.into()), None)),
        }
    })
}

struct Export {
    pages: ReadAhead,
    /// Calls that have been read, and not sent yet.
    unsent: VecDeque<Call>,
    /// The revision of the export; `None` before the first page.
    revision: Option<Revision>,
    stop: StopSignals,
}

impl Export {
    async fn next(&mut self) -> Result<Option<proto::ExportVoiceCallsResponse>, Error> {
        let is_first = self.revision.is_none();
        while self.unsent.is_empty() {
            let page = tokio::select! {
                page = self.pages.next() => page?,
                () = self.stop.ending.cancelled() => return Err(Error::Draining),
                () = self.stop.deadline() => return Err(Error::DeadlineExceeded),
            };
            match page {
                Some(page) => {
                    self.revision = Some(page.position.revision);
                    self.unsent.extend(page.calls);
                }
                None if is_first => break,
                None => return Ok(None),
            }
        }
        let mut budget = ResponseBudget::new();
        let mut voice_calls = Vec::with_capacity(self.unsent.len());
        while let Some(call) = self.unsent.pop_front() {
            let message = calls::call(call);
            let fits = budget.reserve(&message);
            voice_calls.push(message);
            if !fits {
                break;
            }
        }
        Ok(Some(proto::ExportVoiceCallsResponse {
            voice_calls,
            revision: self.revision.unwrap_or_default(),
        }))
    }
}
