//! The calls as they all were at one revision, however slowly they are read.
//!
//! Pages are read in short statements of their own, so nothing in the database
//! waits for the reader. What changed after the first page is put back: the log
//! tells which calls were in the filter then, and the page that covers such a
//! call's place in the order gives it as it was. A call that was changed only
//! after its page had been read came in that page.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use super::{Feed, LogReader, entry};
use crate::{
    domain::{
        Call, Filter, Revision,
        list::{Order, OrderField, PageKey},
    },
    store::{LogError, PageQuery, Position},
};

/// Calls in the first page. How many the others have follows from the size of
/// those before, so that a page takes about so many bytes.
const FIRST_PAGE_LEN: usize = 100;
const MIN_PAGE_LEN: usize = 10;
const PAGE_BYTES: usize = 1024 * 1024;
/// Changed calls that are remembered until their page comes: 32 bytes each.
const MAX_CHANGED: usize = 500_000;

const ORDER: Order = Order {
    field: OrderField::CreatedAt,
    descending: false,
};

/// Why a snapshot cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// More calls have changed meanwhile than are remembered.
    #[error("more calls changed during the snapshot than can be kept in memory")]
    TooSlow,
}

/// See the module.
pub struct Snapshot {
    feed: Feed,
    filter: Arc<Filter>,
    /// What the first page must have reached.
    min_revision: Revision,
    /// Calls in one statement, now and at most.
    page_len: usize,
    max_page_len: usize,
    /// Since the first page.
    at: Option<At>,
    /// The last place that was given.
    after: Option<PageKey>,
    complete: bool,
}

/// Some of its calls.
#[derive(Debug)]
pub struct SnapshotPage {
    /// The position of which all its calls are.
    pub position: Position,
    /// The calls.
    pub calls: Vec<Call>,
}

struct At {
    /// The revision of all.
    position: Position,
    /// Where looking for changes has come to.
    reader: LogReader,
    /// Calls that were in the filter and have changed since, whose place has not
    /// come yet: where, and their first change.
    changed: BTreeMap<PageKey, Revision>,
}

impl Snapshot {
    pub(super) fn new(
        feed: Feed,
        filter: Arc<Filter>,
        min_revision: Revision,
        max_page_len: usize,
    ) -> Self {
        Self {
            feed,
            filter,
            min_revision,
            page_len: max_page_len.min(FIRST_PAGE_LEN),
            max_page_len,
            at: None,
            after: None,
            complete: false,
        }
    }

    /// The position of which all its calls are; `None` before the first page.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.at.as_ref().map(|at| at.position)
    }

    /// The next calls, by created_at and uid; `None` after the last.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn next(&mut self, deadline: Instant) -> Result<Option<SnapshotPage>, SnapshotError> {
        if self.complete {
            return Ok(None);
        }
        let query = PageQuery {
            filter: Filter::clone(&self.filter),
            order: ORDER,
            after: self.after,
            limit: self.page_len,
        };
        let page = self
            .feed
            .store
            .page(&query, self.min_revision, deadline)
            .await;
        let page = page.map_err(LogError::from)?;
        self.look_for_changes(page.position, deadline).await?;
        // Set by the look.
        let Some(at) = &mut self.at else {
            return Ok(None);
        };
        self.complete = !page.has_more;
        let bytes: usize = page.calls.iter().map(entry::size).sum();
        if let Some(mean) = bytes.checked_div(page.calls.len()) {
            let wanted = PAGE_BYTES / mean.max(1);
            self.page_len = wanted.clamp(MIN_PAGE_LEN, self.max_page_len);
        }
        let last = page.calls.last().map(|call| ORDER.key(call));
        let mut calls = page.calls;
        calls.retain(|call| call.revision <= at.position.revision);
        let rest = match last {
            Some(last) if !self.complete => {
                self.after = Some(last);
                let mut rest = at.changed.split_off(&last);
                // The key itself belongs to this page.
                let own = rest.remove_entry(&last);
                at.changed.extend(own);
                rest
            }
            _ => BTreeMap::new(),
        };
        let put_back: Vec<Revision> = std::mem::replace(&mut at.changed, rest)
            .into_values()
            .collect();
        if !put_back.is_empty() {
            let log = self.feed.store.log();
            let changes = log.at(&put_back, page.position, deadline).await?;
            // Those of calls that were purged since are blank.
            calls.extend(
                changes
                    .into_iter()
                    .filter_map(|change| change.before.map(Arc::unwrap_or_clone)),
            );
            calls.sort_unstable_by_key(|call| ORDER.key(call));
        }
        Ok(Some(SnapshotPage {
            position: at.position,
            calls,
        }))
    }

    /// Takes note of the calls that have changed up to the end of the log as the page saw
    /// it, which must be the end of the same log.
    async fn look_for_changes(
        &mut self,
        end: Position,
        deadline: Instant,
    ) -> Result<(), SnapshotError> {
        let Some(at) = &mut self.at else {
            // What the page saw may be gone with the log that it was in.
            self.feed.check(end, deadline).await?;
            self.at = Some(At {
                position: end,
                reader: self.feed.log_reader(end, end),
                changed: BTreeMap::new(),
            });
            return Ok(());
        };
        while at.reader.position().revision < end.revision {
            let entries = at.reader.take(end.revision, |_| true).await?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let change = entry.change();
                // The first change since: it was at or before our revision then.
                let before = change.before.as_ref();
                let Some(before) = before.filter(|call| call.revision <= at.position.revision)
                else {
                    continue;
                };
                let place = ORDER.key(before);
                if Some(place) > self.after && self.filter.matches(before) {
                    at.changed.insert(place, change.revision);
                }
            }
            if at.changed.len() > MAX_CHANGED {
                return Err(SnapshotError::TooSlow);
            }
        }
        if at.reader.position() != end {
            return Err(LogError::Reset.into());
        }
        Ok(())
    }
}
