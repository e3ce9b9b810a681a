//! The stream of ExportVoiceCalls: the calls as they all were at one revision, in
//! chunks, at the client's pace.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{Stream, stream};
use tonic::Status;

use crate::{
    api::{
        context::Ends,
        error::Error,
        request::{commands, filter},
        response::{budget::ResponseBudget, calls},
        violations::Violations,
    },
    domain::{Call, Filter, Revision},
    feed::{Feed, ReadAhead},
    proto,
};

/// Calls that are read at once, at most.
const MAX_PAGE_LEN: usize = 2000;

/// Which calls a client wants exported.
pub(crate) struct ExportQuery {
    filter: Filter,
    pub(crate) min_revision: Revision,
}

/// The request, checked.
pub(crate) fn parse(request: proto::ExportVoiceCallsRequest) -> Result<ExportQuery, Violations> {
    let mut violations = Violations::default();
    let filter = filter::filter(request.filter, &mut violations);
    let min_revision = commands::min_revision(request.min_revision, &mut violations);
    Ok(ExportQuery {
        filter: violations.or(Some(filter))?,
        min_revision,
    })
}

/// Exports them, until either side ends it.
pub(crate) fn run(
    feed: &Feed,
    query: ExportQuery,
    ends: Ends,
) -> impl Stream<Item = Result<proto::ExportVoiceCallsResponse, Status>> + use<> {
    let export = Export {
        pages: feed.snapshot_ahead(Arc::new(query.filter), query.min_revision, MAX_PAGE_LEN),
        waiting: VecDeque::new(),
        revision: None,
        ends,
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
    /// Read, and not sent yet.
    waiting: VecDeque<Call>,
    /// The revision of all; `None` before the first page.
    revision: Option<Revision>,
    ends: Ends,
}

impl Export {
    async fn next(&mut self) -> Result<Option<proto::ExportVoiceCallsResponse>, Error> {
        let is_first = self.revision.is_none();
        while self.waiting.is_empty() {
            let page = tokio::select! {
                page = self.pages.next() => page?,
                () = self.ends.draining.cancelled() => return Err(Error::Draining),
                () = self.ends.deadline() => return Err(Error::DeadlineExceeded),
            };
            match page {
                Some(page) => {
                    self.revision = Some(page.position.revision);
                    self.waiting.extend(page.calls);
                }
                None if is_first => break,
                None => return Ok(None),
            }
        }
        let mut budget = ResponseBudget::new();
        let mut voice_calls = Vec::with_capacity(self.waiting.len());
        while let Some(call) = self.waiting.pop_front() {
            let message = calls::call(call);
            let fits = budget.take(&message);
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
