//! The stream of ExportVoiceCalls: the calls as they all were at one revision, in
//! chunks, at the client's pace.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tokio::time::Instant;
use tonic::Status;

use super::{
    context::Ends, convert, error::Error, filter, parse, proto, size::Room, violations::Violations,
};
use crate::{
    domain::{Call, Filter},
    feed::{Feed, Snapshot},
};

/// Calls that are read at once.
const PAGE: usize = 1000;
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Which calls, checked.
pub(super) fn query(request: proto::ExportVoiceCallsRequest) -> Result<Filter, Violations> {
    let mut violations = Violations::default();
    let filter = filter::filter(request.filter, &mut violations);
    parse::min_revision(request.min_revision, &mut violations);
    violations.or(Some(filter))
}

/// Exports them, until either side ends it.
pub(super) fn run(
    feed: &Feed,
    filter: Filter,
    ends: Ends,
) -> impl Stream<Item = Result<proto::ExportVoiceCallsResponse, Status>> + use<> {
    let export = Export {
        snapshot: feed.snapshot(Arc::new(filter), PAGE),
        waiting: VecDeque::new(),
        ends,
        is_complete: false,
        sent: false,
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
    snapshot: Snapshot,
    /// Read, and not sent yet.
    waiting: VecDeque<Call>,
    ends: Ends,
    /// Nothing is left to read.
    is_complete: bool,
    /// Whether anything was.
    sent: bool,
}

impl Export {
    async fn next(&mut self) -> Result<Option<proto::ExportVoiceCallsResponse>, Error> {
        while self.waiting.is_empty() && !self.is_complete {
            self.read().await?;
        }
        if self.waiting.is_empty() && self.sent {
            return Ok(None);
        }
        self.sent = true;
        let mut room = Room::new();
        let mut voice_calls = Vec::with_capacity(self.waiting.len());
        while let Some(call) = self.waiting.pop_front() {
            let message = convert::call(call);
            let fits = room.take(&message);
            voice_calls.push(message);
            if !fits {
                break;
            }
        }
        let position = self.snapshot.position().unwrap_or_default();
        Ok(Some(proto::ExportVoiceCallsResponse {
            voice_calls,
            revision: position.revision,
        }))
    }

    async fn read(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + PAGE_TIMEOUT;
        let deadline = self.ends.deadline.map_or(deadline, |end| end.min(deadline));
        let page = tokio::select! {
            page = self.snapshot.next(deadline) => page?,
            () = self.ends.draining.cancelled() => return Err(Error::Draining),
        };
        match page {
            Some(calls) => self.waiting.extend(calls),
            None => self.is_complete = true,
        }
        Ok(())
    }
}
