//! A snapshot whose next page is read while the current one is processed.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};

use super::{Snapshot, SnapshotError, snapshot::SnapshotPage};

/// How long reading a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pages of a snapshot, one of which is read ahead.
#[derive(Debug)]
pub struct ReadAhead {
    pages: mpsc::Receiver<Result<SnapshotPage, SnapshotError>>,
}

impl ReadAhead {
    /// The pages, and the task that reads them until this is dropped.
    pub(super) fn new(snapshot: Snapshot) -> (Self, impl Future<Output = ()>) {
        let (sender, pages) = mpsc::channel(1);
        (Self { pages }, read(snapshot, sender))
    }

    /// The next page; `None` after the last. Cancel-safe: a caller that stops waiting loses
    /// no page.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing comes after one.
    pub async fn next(&mut self) -> Result<Option<SnapshotPage>, SnapshotError> {
        self.pages.recv().await.transpose()
    }
}

async fn read(mut snapshot: Snapshot, pages: mpsc::Sender<Result<SnapshotPage, SnapshotError>>) {
    while let Ok(permit) = pages.reserve().await {
        let page = tokio::select! {
            page = snapshot.next(Instant::now() + PAGE_TIMEOUT) => page,
            () = pages.closed() => return,
        };
        let Some(page) = page.transpose() else { return };
        let is_last = page.is_err();
        permit.send(page);
        if is_last {
            return;
        }
    }
}
