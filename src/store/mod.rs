//! Calls, kept in PostgreSQL: the only home of diesel and of SQL.
//!
//! - [`Store`] is the whole of it to the layers above
//! - `writer` takes writes in batches through the state machine (`batch`) and
//!   commits each by one statement (`commit`); `outcome` finds out what became of
//!   a commit whose connection broke; `records` answers repeated requests
//! - `reader` looks calls up by uid, coalesced; `list` reads pages of them, with
//!   the filter as SQL (`filter_sql`)
//! - `migrations`, `partitions`, `availability` look after the database
//!
//! It deliberately knows nothing of gRPC, of deadlines' origin, or of who may do
//! what.

mod availability;
mod batch;
mod commit;
mod connection;
mod error;
mod filter_sql;
mod head;
mod list;
mod migrations;
mod outcome;
mod partitions;
mod reader;
mod records;
mod row;
mod schema;
mod write;
mod writer;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use connection::Connector;
pub use error::{OpenError, ReadError, WriteError};
pub use list::{Page, PageQuery};
pub use migrations::{check as check_migrations, migrate};
pub use write::{Action, RequestKey, Write, Written};

use self::{availability::Availability, head::Head, list::Lists, reader::Reader, writer::Writer};
use crate::domain::{Call, Revision, Uuid};

/// How long a read waits for its min_revision at most.
const MAX_REVISION_WAIT: Duration = Duration::from_secs(5);
const LOOK_FOR_REVISION_EVERY: Duration = Duration::from_millis(20);

/// How large the store's parts may grow.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Writes that wait for the writer.
    pub write_queue: usize,
    /// Reads by uid that wait for a reader.
    pub read_queue: usize,
    /// Connections for lists.
    pub list_connections: usize,
}

/// The calls, their changes, and the answers to requests. Clones share it.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    reader: Reader,
    lists: Lists,
    head: Head,
    availability: Availability,
}

/// Ends the store's tasks, which it owns.
#[derive(Debug)]
pub struct StoreTasks {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Store {
    /// Opens the store on a database that is there and migrated.
    ///
    /// # Errors
    /// [`OpenError::Connect`].
    pub async fn open(connector: &Connector, limits: Limits) -> Result<(Self, StoreTasks), OpenError> {
        partitions::tend(connector).await.map_err(OpenError::Connect)?;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let availability = Availability::new();
        let head = Head::default();
        tasks.spawn(availability.clone().watch(connector.clone(), stop.clone()));
        tasks.spawn(partitions::keep(
            connector.clone(),
            availability.clone(),
            stop.clone(),
        ));
        let store = Self {
            writer: Writer::start(connector, &availability, &head, limits.write_queue, &tasks),
            reader: Reader::start(connector, &availability, limits.read_queue, &tasks),
            lists: Lists::new(connector, &availability, limits.list_connections),
            head,
            availability,
        };
        tasks.close();
        Ok((store, StoreTasks { tasks, stop }))
    }

    /// Writes, durably. The write takes place or not as a whole.
    ///
    /// # Errors
    /// [`WriteError`], as its variants say.
    pub async fn write(&self, write: Write) -> Result<Written, WriteError> {
        self.writer.submit(write).await
    }

    /// Looks up calls, no uid twice; those that exist come back in the order of
    /// `uids`, deleted ones included.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn get(&self, uids: Vec<Uuid>) -> Result<Vec<Arc<Call>>, ReadError> {
        self.reader.get(uids).await
    }

    /// Reads a page of a list.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn page(&self, query: &PageQuery, deadline: Instant) -> Result<Page, ReadError> {
        let page = self.lists.page(query, deadline).await?;
        self.head.advance(page.revision);
        Ok(page)
    }

    /// Waits until reads see `revision`, at most 5 s or until the deadline.
    ///
    /// # Errors
    /// [`ReadError::RevisionNotReached`], and those of a read.
    pub async fn wait_for(&self, revision: Revision, deadline: Instant) -> Result<(), ReadError> {
        let give_up = deadline.min(Instant::now() + MAX_REVISION_WAIT);
        while self.head.get() < revision {
            self.head.advance(self.lists.head(deadline).await?);
            if self.head.get() >= revision {
                break;
            }
            if Instant::now() + LOOK_FOR_REVISION_EVERY >= give_up {
                return Err(ReadError::RevisionNotReached {
                    current_revision: self.head.get(),
                });
            }
            sleep(LOOK_FOR_REVISION_EVERY).await;
        }
        Ok(())
    }

    /// Whether the database is there, now and from now on.
    #[must_use]
    pub fn availability(&self) -> watch::Receiver<bool> {
        self.availability.subscribe()
    }
}

impl StoreTasks {
    /// Waits until what was accepted is done and the tasks have ended. Every
    /// [`Store`] must be gone, or this waits for it.
    pub async fn finish(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}
