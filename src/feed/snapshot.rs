//! The calls as they all were at one revision, however slowly they are read.
//!
//! Pages are read by short statements of their own, so nothing in the database waits for the
//! reader. The revision is that of the head at the first page, and every page must come from the
//! log that has it, with its stamp. Changes after it are undone: before each later page the log is
//! read up to that page's own head. It says which calls that were in the view have changed for
//! the first time since, and the page that covers the key of such a call returns it as it was, from
//! the change's old values. A call that changed only after its page had been read was returned by
//! that page.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use super::{Feed, LogReader, UnsentCalls};
use crate::{
    domain::{
        Call, Revision, View,
        list::{Order, OrderField, PageKey},
    },
    store::{LogError, PageQuery, Position},
};

/// The calls in the first page. The length of later pages follows from the size of the calls
/// before, so that a page has about `PAGE_BYTES`.
const FIRST_PAGE_LEN: usize = 100;
const MIN_PAGE_LEN: usize = 10;
const PAGE_BYTES: usize = 1024 * 1024;
/// The most changed calls that are remembered until their page is read: 32 bytes each. Beyond
/// that the snapshot is too slow.
const MAX_CHANGED: usize = 500_000;

const ORDER: Order = Order {
    field: OrderField::CreatedAt,
    descending: false,
};

/// Why a snapshot cannot continue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// More calls changed than are remembered.
    #[error("more calls changed during the snapshot than can be kept in memory")]
    TooSlow,
}

/// A snapshot in progress; see the module.
pub(crate) struct Snapshot {
    feed: Feed,
    view: Arc<View>,
    /// What the first page must have reached.
    min_revision: Revision,
    /// The calls in the next page.
    page_len: usize,
    max_page_len: usize,
    /// `None` before the first page.
    baseline: Option<Baseline>,
    /// The key of the last page's last call.
    after: Option<PageKey>,
    complete: bool,
}

/// A page of a snapshot.
#[derive(Debug)]
pub struct SnapshotPage {
    /// The position of the whole snapshot.
    pub position: Position,
    /// The calls, as they were at this position.
    pub calls: UnsentCalls,
}

/// The position of a snapshot, and what has changed since.
struct Baseline {
    position: Position,
    /// Reads the changes since.
    reader: LogReader,
    /// Calls that were in the view, have changed since, and have not been returned yet: by
    /// their key then, the revision of their first change.
    changed: BTreeMap<PageKey, Revision>,
}

impl Snapshot {
    pub(super) fn new(
        feed: Feed,
        view: Arc<View>,
        min_revision: Revision,
        max_page_len: usize,
    ) -> Self {
        Self {
            feed,
            view,
            min_revision,
            page_len: max_page_len.min(FIRST_PAGE_LEN),
            max_page_len,
            baseline: None,
            after: None,
            complete: false,
        }
    }

    /// The position of the snapshot; `None` before the first page.
    #[must_use]
    pub(crate) fn position(&self) -> Option<Position> {
        self.baseline.as_ref().map(|baseline| baseline.position)
    }

    /// The next calls, by created_at and uid; `None` after the last.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub(crate) async fn next(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<SnapshotPage>, SnapshotError> {
        if self.complete {
            return Ok(None);
        }
        let query = PageQuery {
            view: View::clone(&self.view),
            order: ORDER,
            after: self.after,
            limit: self.page_len,
        };
        let purges = Arc::clone(self.feed.hub.purges());
        let seen = purges.count();
        let page = self
            .feed
            .store
            .snapshot_page(&query, self.min_revision, deadline)
            .await;
        let page = page.map_err(LogError::from)?;
        self.find_changes(page.position, deadline).await?;
        // Set by `find_changes`.
        let Some(baseline) = &mut self.baseline else {
            return Ok(None);
        };
        self.complete = !page.has_more;
        let bytes: usize = page.calls.iter().map(Call::size).sum();
        if let Some(mean) = bytes.checked_div(page.calls.len()) {
            let len = PAGE_BYTES / mean.max(1);
            self.page_len = len.clamp(MIN_PAGE_LEN, self.max_page_len);
        }
        let last = page.calls.last().map(|call| ORDER.key(call));
        let mut calls = page.calls;
        calls.retain(|call| call.revision <= baseline.position.revision);
        let rest = match last {
            Some(last) if !self.complete => {
                self.after = Some(last);
                let mut rest = baseline.changed.split_off(&last);
                // The last key itself belongs to this page.
                let own = rest.remove_entry(&last);
                baseline.changed.extend(own);
                rest
            }
            _ => BTreeMap::new(),
        };
        let to_restore: Vec<Revision> = std::mem::replace(&mut baseline.changed, rest)
            .into_values()
            .collect();
        if !to_restore.is_empty() {
            let log = self.feed.store.log();
            let changes = log.at(&to_restore, page.position, deadline).await?;
            // The changes of calls that have been purged since have no content.
            calls.extend(
                changes
                    .into_iter()
                    .filter_map(|change| change.before.map(Arc::unwrap_or_clone)),
            );
            calls.sort_unstable_by_key(|call| ORDER.key(call));
        }
        Ok(Some(SnapshotPage {
            position: baseline.position,
            calls: UnsentCalls::new(calls, purges, seen),
        }))
    }

    /// Records the calls that have changed up to `end`, the end of the log when the page was
    /// read. It must be in the log of the snapshot.
    async fn find_changes(
        &mut self,
        end: Position,
        deadline: Instant,
    ) -> Result<(), SnapshotError> {
        let Some(baseline) = &mut self.baseline else {
            // The log that the page was read with may have been replaced since.
            self.feed.check(end, deadline).await?;
            self.baseline = Some(Baseline {
                position: end,
                reader: self.feed.log_reader(end, end),
                changed: BTreeMap::new(),
            });
            return Ok(());
        };
        while baseline.reader.position().revision < end.revision {
            let entries = baseline.reader.read_next(end.revision, |_| true).await?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let change = entry.change();
                // Only the first change since: before it, the call was at or before the
                // revision of the snapshot.
                let before = change.before.as_ref();
                let Some(before) =
                    before.filter(|call| call.revision <= baseline.position.revision)
                else {
                    continue;
                };
                let key = ORDER.key(before);
                if Some(key) > self.after && self.view.matches(before) {
                    baseline.changed.insert(key, change.revision);
                }
            }
            if baseline.changed.len() > MAX_CHANGED {
                return Err(SnapshotError::TooSlow);
            }
        }
        if baseline.reader.position() != end {
            return Err(LogError::Reset.into());
        }
        Ok(())
    }
}
