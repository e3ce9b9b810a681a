//! The stream of ExportVoiceCalls: the calls as they all were at one revision, in
//! chunks, at the client's pace.

use std::sync::Arc;

use futures_util::{Stream, stream};
use tonic::Status;

use crate::{
    api::{
        context::StopSignals,
        error::Error,
        request::{commands, filter},
        response::chunk::next_chunk,
        violations::Violations,
    },
    domain::{Narrowing, Revision, View},
    feed::{Feed, ReadAhead, UnsentCalls},
    proto,
};

/// The most calls that are read at once.
const MAX_PAGE_LEN: usize = 2000;

/// A validated request for an export.
pub(crate) struct ExportQuery {
    view: View,
    pub(crate) min_revision: Revision,
}

/// Validates the request of a caller with this narrowing.
pub(crate) fn parse(
    request: proto::ExportVoiceCallsRequest,
    narrowing: Option<Arc<Narrowing>>,
) -> Result<ExportQuery, Violations> {
    let mut violations = Violations::default();
    let filter = filter::filter(request.filter, &mut violations);
    let min_revision = commands::min_revision(request.min_revision, &mut violations);
    Ok(ExportQuery {
        view: View {
            filter: violations.or(Some(filter))?,
            narrowing,
        },
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
        pages: feed.snapshot_ahead(Arc::new(query.view), query.min_revision, MAX_PAGE_LEN),
        unsent: UnsentCalls::default(),
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
    unsent: UnsentCalls,
    /// The revision of the export; `None` before the first page.
    revision: Option<Revision>,
    stop: StopSignals,
}

impl Export {
    async fn next(&mut self) -> Result<Option<proto::ExportVoiceCallsResponse>, Error> {
        self.stop.check()?;
        let is_first = self.revision.is_none();
        let voice_calls = loop {
            let chunk = next_chunk(&mut self.unsent)?;
            if !chunk.is_empty() {
                break chunk;
            }
            let page = tokio::select! {
                page = self.pages.next() => page?,
                error = self.stop.ended() => return Err(error),
            };
            match page {
                Some(page) => {
                    self.revision = Some(page.position.revision);
                    self.unsent = page.calls;
                }
                None if is_first => break Vec::new(),
                None => return Ok(None),
            }
        };
        Ok(Some(proto::ExportVoiceCallsResponse {
            voice_calls,
            revision: self.revision.unwrap_or_default(),
        }))
    }
}
