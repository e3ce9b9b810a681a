//! Changes and events on the wire, and where one goes on among them.

use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use crate::{
    api::{
        error::Error,
        request::{commands, filter},
        response::{budget::ResponseBudget, calls},
        tokens::resume_token::ResumeToken,
        violations::Violations,
    },
    domain::{Change, ChangeKind, Field, Filter, view::EventType},
    feed::Feed,
    proto,
    proto::list_voice_call_changes_request::Start,
    store::{LogError, Position, Store, Tail},
};

/// Changes that the filter leaves out before a page ends without an event.
const MAX_SCANNED: usize = 10_000;

/// The position of a resume token in the log that ends at `tail`.
pub(crate) async fn resume(
    feed: &Feed,
    token: &str,
    tail: &Tail,
    deadline: Instant,
) -> Result<Position, Error> {
    let ResumeToken { feed_id, position } = ResumeToken::decode(token)?;
    if feed_id != tail.feed_id {
        return Err(Error::Log(LogError::Reset));
    }
    feed.check(position, deadline).await?;
    Ok(position)
}

/// The change's encoded message.
pub(crate) fn encode_change(change: &Change, with_previous: bool) -> Bytes {
    self::change(change, with_previous).encode_to_vec().into()
}

/// The event's type.
pub(crate) fn event_type(event: EventType) -> proto::VoiceCallEventType {
    match event {
        EventType::Entered => proto::VoiceCallEventType::Entered,
        EventType::Updated => proto::VoiceCallEventType::Updated,
        EventType::Exited => proto::VoiceCallEventType::Exited,
        EventType::Deleted => proto::VoiceCallEventType::Deleted,
        EventType::Purged => proto::VoiceCallEventType::Purged,
    }
}

fn change(change: &Change, with_previous: bool) -> proto::VoiceCallChange {
    let call = |call: &std::sync::Arc<crate::domain::Call>| calls::call((**call).clone());
    let changed_fields = match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            let fields = after.changed_fields(before);
            let paths = fields
                .iter()
                .filter(|field| !matches!(field, Field::UpdatedAt | Field::Revision))
                .map(|field| field.name().to_owned());
            Some(prost_types::FieldMask {
                paths: paths.collect(),
            })
        }
        _ => None,
    };
    let previous = change.before.as_ref().filter(|_| with_previous);
    proto::VoiceCallChange {
        revision: change.revision,
        uid: change.uid.to_string(),
        changed_at: Some(calls::timestamp(change.changed_at)),
        kind: kind(change.kind).into(),
        voice_call: change.after.as_ref().map(call),
        previous: previous.map(call),
        changed_fields,
        actor: change.actor.as_deref().unwrap_or_default().to_owned(),
        request_id: change
            .request_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        transaction_end: change.transaction_end,
    }
}

fn kind(kind: Option<ChangeKind>) -> proto::VoiceCallChangeKind {
    match kind {
        None => proto::VoiceCallChangeKind::Unspecified,
        Some(ChangeKind::Created) => proto::VoiceCallChangeKind::Created,
        Some(ChangeKind::Updated) => proto::VoiceCallChangeKind::Updated,
        Some(ChangeKind::Handled) => proto::VoiceCallChangeKind::Handled,
        Some(ChangeKind::Deleted) => proto::VoiceCallChangeKind::Deleted,
        Some(ChangeKind::Undeleted) => proto::VoiceCallChangeKind::Undeleted,
        Some(ChangeKind::Purged) => proto::VoiceCallChangeKind::Purged,
        Some(ChangeKind::Imported) => proto::VoiceCallChangeKind::Imported,
    }
}

/// Which changes a client wants listed.
#[derive(Debug)]
pub(crate) struct ChangesQuery {
    filter: Filter,
    start: Option<Start>,
    page_size: usize,
}

/// The request, checked.
pub(crate) fn parse(
    request: proto::ListVoiceCallChangesRequest,
) -> Result<ChangesQuery, Violations> {
    let mut violations = Violations::default();
    let filter = filter::filter(request.filter, &mut violations);
    let page_size = commands::page_size(request.page_size, &mut violations);
    if let Some(Start::AfterRevision(..0)) = request.start {
        violations.push("after_revision", "must not be negative");
    }
    commands::min_revision(request.min_revision, &mut violations);
    Ok(ChangesQuery {
        filter: violations.or(Some(filter))?,
        start: request.start,
        page_size,
    })
}

/// A page of the changes up to `tail`.
pub(crate) async fn list(
    store: &Store,
    feed: &Feed,
    query: ChangesQuery,
    tail: Tail,
    deadline: Instant,
) -> Result<proto::ListVoiceCallChangesResponse, Error> {
    let start = match &query.start {
        None => feed.position(tail.oldest_revision, deadline).await?,
        Some(Start::AfterRevision(revision)) => feed.position(*revision, deadline).await?,
        Some(Start::ResumeToken(token)) => resume(feed, token, &tail, deadline).await?,
    };
    let mut page = ChangePage {
        room: ResponseBudget::new(),
        left: query.page_size,
        events: Vec::new(),
    };
    let position = if query.filter.uids.is_empty() {
        scan(feed, &query, start, tail.head, &mut page).await?
    } else {
        history(store, feed, &query, start, &tail, &mut page, deadline).await?
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

/// What has been put together of a page.
struct ChangePage {
    room: ResponseBudget,
    left: usize,
    events: Vec<proto::VoiceCallEvent>,
}

impl ChangePage {
    /// Adds the change if it is an event to the filter; false: the page is full,
    /// and the change is not in it.
    fn take(&mut self, filter: &Filter, change: &Change) -> bool {
        let Some(event) = filter.event(change) else {
            return true;
        };
        let event = proto::VoiceCallEvent {
            r#type: event_type(event).into(),
            change: Some(self::change(change, false)),
        };
        if self.left == 0 || !self.room.take(&event) {
            return false;
        }
        self.left -= 1;
        self.events.push(event);
        true
    }
}

/// Reads the log on from `start`; answers how far the page reaches.
async fn scan(
    feed: &Feed,
    query: &ChangesQuery,
    start: Position,
    end: Position,
    page: &mut ChangePage,
) -> Result<Position, Error> {
    let mut scan = feed.log_reader(start, end);
    let end = end.revision;
    let mut scanned = 0;
    let mut is_full = false;
    while !is_full && scanned < MAX_SCANNED && scan.position().revision < end {
        let entries = scan.take(end, |entry| {
            is_full = !page.take(&query.filter, entry.change());
            !is_full
        });
        let taken = entries.await?.len();
        scanned += taken;
        if taken == 0 {
            break;
        }
    }
    Ok(scan.position())
}

/// Reads the history of the calls that the filter names.
async fn history(
    store: &Store,
    feed: &Feed,
    query: &ChangesQuery,
    start: Position,
    tail: &Tail,
    page: &mut ChangePage,
    deadline: Instant,
) -> Result<Position, Error> {
    let limit = i64::try_from(query.page_size + 1).unwrap_or(i64::MAX);
    let mut last = start.revision;
    loop {
        let uids = &query.filter.uids;
        let changes = store.log().of_calls(uids, last, tail.head, limit, deadline);
        let changes = changes.await?;
        if changes.is_empty() {
            return Ok(tail.head);
        }
        for change in &changes {
            if !page.take(&query.filter, change) {
                return Ok(feed.position(last, deadline).await?);
            }
            last = change.revision;
        }
    }
}
