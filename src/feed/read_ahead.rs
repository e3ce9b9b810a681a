//! A snapshot whose next page is read while the current one is processed.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};

use super::{Snapshot, SnapshotError, snapshot::SnapshotPage};
use crate::store::{LogError, ReadError};

/// How long reading a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pages of a snapshot, one of which is read ahead.
#[derive(Debug)]
pub struct ReadAhead {
    pages: mpsc::Receiver<Page>,
    is_complete: bool,
}

/// A page; `None` is the end, which is sent too: a reader that ends without has panicked, and
/// what it has sent is not the whole snapshot.
type Page = Result<Option<SnapshotPage>, SnapshotError>;

impl ReadAhead {
    /// The pages, and the task that reads them until this is dropped.
    pub(super) fn new(snapshot: Snapshot) -> (Self, impl Future<Output = ()>) {
        let (sender, pages) = mpsc::channel(1);
        let ahead = Self {
            pages,
            is_complete: false,
        };
        (ahead, read(snapshot, sender))
    }

    /// The next page; `None` after the last. Cancel-safe: a caller that stops waiting loses
    /// no page.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing comes after one.
    pub async fn next(&mut self) -> Result<Option<SnapshotPage>, SnapshotError> {
        if self.is_complete {
            return Ok(None);
        }
        let page = self.pages.recv().await;
        let page = page.unwrap_or(Err(LogError::Read(ReadError::Internal).into()))?;
        self.is_complete = page.is_none();
        Ok(page)
    }
}

async fn read(mut snapshot: Snapshot, pages: mpsc::Sender<Page>) {
    while let Ok(permit) = pages.reserve().await {
        let page = tokio::select! {
            page = snapshot.next(Instant::now() + PAGE_TIMEOUT) => page,
            () = pages.closed() => return,
        };
        let is_last = !matches!(page, Ok(Some(_)));
        permit.send(page);
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_that_break_off_are_not_a_whole_snapshot() {
        let (sender, pages) = mpsc::channel(1);
        let mut ahead = ReadAhead {
            pages,
            is_complete: false,
        };
        drop(sender);
        let error = LogError::Read(ReadError::Internal);
        assert_eq!(ahead.next().await.err(), Some(error.into()));

        let (sender, pages) = mpsc::channel(1);
        ahead.pages = pages;
        sender.send(Ok(None)).await.expect("there is room");
        drop(sender);
        for _ in 0..2 {
            assert!(ahead.next().await.expect("it is whole").is_none());
        }
    }
}
