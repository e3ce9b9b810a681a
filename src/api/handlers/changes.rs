//! ListVoiceCallChanges: pages of the change log, and the history of calls.

use std::sync::Arc;

use tokio::time::Instant;

use super::resume::resume;
use crate::{
    api::{
        error::Error,
        request::{commands, filter},
        response::{budget::ResponseBudget, changes},
        tokens::resume_token::ResumeToken,
        violations::Violations,
    },
    domain::{Change, Narrowing, Revision, View},
    feed::Feed,
    proto,
    proto::list_voice_call_changes_request::Start,
    store::{Position, Store, Tail},
};

/// The most changes that are read for a page; a page may end here without any event.
const MAX_READ: usize = 10_000;

/// A validated request for changes.
#[derive(Debug)]
pub(crate) struct ChangesQuery {
    view: View,
    start: Option<Start>,
    page_size: usize,
    min_revision: Revision,
}

/// Validates the request of a caller with this narrowing.
pub(crate) fn parse(
    request: proto::ListVoiceCallChangesRequest,
    narrowing: Option<Arc<Narrowing>>,
) -> Result<ChangesQuery, Violations> {
    let mut violations = Violations::default();
    let filter = filter::filter(request.filter, &mut violations);
    let page_size = commands::page_size(request.page_size, &mut violations);
    if let Some(Start::AfterRevision(..0)) = request.start {
        violations.push("after_revision", "must not be negative");
    }
    let min_revision = commands::min_revision(request.min_revision, &mut violations);
    Ok(ChangesQuery {
        view: View {
            filter: violations.or(Some(filter))?,
            narrowing,
        },
        start: request.start,
        page_size,
        min_revision,
    })
}

/// A page of the changes up to the end of the log.
pub(crate) async fn list(
    store: &Store,
    feed: &Feed,
    query: ChangesQuery,
    deadline: Instant,
) -> Result<proto::ListVoiceCallChangesResponse, Error> {
    let tail = store.tail(query.min_revision, deadline).await?;
    let log = store.log();
    let start = match &query.start {
        None => log.position(tail.oldest_revision, deadline).await?,
        Some(Start::AfterRevision(revision)) => log.position(*revision, deadline).await?,
        Some(Start::ResumeToken(token)) => resume(feed, token, &tail, deadline).await?,
    };
    let mut page = ChangePage {
        budget: ResponseBudget::new(),
        left: query.page_size,
        events: Vec::new(),
    };
    let position = if query.view.filter.uids.is_empty() {
        read_log(feed, &query, start, tail.head, &mut page).await?
    } else {
        history(store, &query, start, &tail, &mut page, deadline).await?
    };
    Ok(proto::ListVoiceCallChangesResponse {
        events: page.events,
        resume_token: ResumeToken {
            feed_id: tail.feed_id,
            position,
        }
        .encode(),
        caught_up: position.revision >= tail.head.revision,
    })
}

/// A page while it is filled.
struct ChangePage {
    budget: ResponseBudget,
    left: usize,
    events: Vec<proto::VoiceCallEvent>,
}

impl ChangePage {
    /// Adds the change if it is an event for this view. Returns false if the page is full
    /// and the change is not in it.
    fn add(&mut self, view: &View, change: &Change) -> bool {
        let Some(event) = view.event(change) else {
            return true;
        };
        let event = proto::VoiceCallEvent {
            r#type: changes::event_type(event.event_type).into(),
            change: Some(changes::change(change, event.disclosure, false)),
        };
        if self.left == 0 || !self.budget.reserve(&event) {
            return false;
        }
        self.left -= 1;
        self.events.push(event);
        true
    }
}

/// Fills the page from the log after `start`, and returns how far the page reaches.
async fn read_log(
    feed: &Feed,
    query: &ChangesQuery,
    start: Position,
    end: Position,
    page: &mut ChangePage,
) -> Result<Position, Error> {
    let mut reader = feed.log_reader(start, end);
    let end = end.revision;
    let mut read = 0;
    let mut is_full = false;
    while !is_full && read < MAX_READ && reader.position().revision < end {
        let entries = reader.read_next(end, |entry| {
            is_full = !page.add(&query.view, entry.change());
            !is_full
        });
        let count = entries.await?.len();
        read += count;
        if count == 0 {
            break;
        }
    }
    Ok(reader.position())
}

/// Fills the page from the history of the calls that the filter names, and returns how far
/// the page reaches.
async fn history(
    store: &Store,
    query: &ChangesQuery,
    start: Position,
    tail: &Tail,
    page: &mut ChangePage,
    deadline: Instant,
) -> Result<Position, Error> {
    let limit = query.page_size + 1;
    let View { filter, narrowing } = &query.view;
    let narrowing = narrowing.as_deref();
    let mut last = start.revision;
    loop {
        let uids = &filter.uids;
        let changes = store
            .log()
            .of_calls(uids, narrowing, last, tail.head, limit, deadline);
        let changes = changes.await?;
        for change in &changes {
            if !page.add(&query.view, change) {
                return Ok(store.log().position(last, deadline).await?);
            }
            last = change.revision;
        }
        if changes.len() < limit {
            return Ok(tail.head);
        }
    }
}
