//! Calls, kept in PostgreSQL: the only home of diesel and of SQL.
//!
//! - [`Store`] is the whole of it to the layers above
//! - `writer` takes writes from a `queue`; each `lane` runs batches of them
//!   through the state machine (`batch`) and commits each by one statement
//!   (`commit`); `outcome` finds out what became of a commit whose connection
//!   broke; `records` answers repeated requests
//! - `reader` looks calls up by uid, coalesced; `list` reads pages of them, with
//!   the filter as SQL (`filter_sql`)
//! - `migrations`, `partitions`, `availability` look after the database
//! - `connection` makes the connections, by TLS (`tls`) as the URL asks (`url`)
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
mod lane;
mod list;
mod migrations;
mod outcome;
mod partitions;
mod queue;
mod reader;
mod records;
mod row;
mod schema;
mod tls;
mod url;
mod write;
mod writer;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

pub use connection::Connector;
pub use error::{OpenError, ReadError, WriteError};
pub use list::{Page, PageQuery};
pub use migrations::{check as check_migrations, migrate};
pub use write::{Action, RequestKey, Write, Written};

use self::{availability::Availability, head::Head, list::Lists, reader::Reader, writer::Writer};
use crate::domain::{
    Call, Command, Revision, Timestamp, Uuid,
    machine::{self, Step},
};

/// How long a read waits for its min_revision at most.
const MAX_REVISION_WAIT: Duration = Duration::from_secs(5);
const FIRST_OPEN_RETRY: Duration = Duration::from_millis(100);
const LAST_OPEN_RETRY: Duration = Duration::from_secs(5);
const LOOK_FOR_REVISION_EVERY: Duration = Duration::from_millis(20);
/// How long before the deadline the wait ends, so that the client hears why
/// rather than nothing.
const TIME_TO_ANSWER: Duration = Duration::from_millis(100);

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
///
/// A new store answers everything with "the database is away" until it has been
/// opened.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    reader: Reader,
    lists: Lists,
    head: Head,
    availability: Availability,
}

/// Opens the store and ends its tasks, which it owns.
#[derive(Debug)]
pub struct StoreTasks {
    connector: Connector,
    availability: Availability,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Store {
    /// A store on the database that `connector` reaches.
    #[must_use]
    pub fn new(connector: Connector, limits: Limits) -> (Self, StoreTasks) {
        let tasks = TaskTracker::new();
        let availability = Availability::new();
        let head = Head::default();
        let store = Self {
            writer: Writer::start(&connector, &availability, &head, limits.write_queue, &tasks),
            reader: Reader::start(&connector, &availability, limits.read_queue, &tasks),
            lists: Lists::new(&connector, &availability, limits.list_connections),
            head,
            availability: availability.clone(),
        };
        let tasks = StoreTasks {
            connector,
            availability,
            tasks,
            stop: CancellationToken::new(),
        };
        (store, tasks)
    }

    /// Writes, durably. The write takes place or not as a whole.
    ///
    /// # Errors
    /// [`WriteError`], as its variants say.
    pub async fn write(&self, write: Write) -> Result<Written, WriteError> {
        self.writer.submit(write).await
    }

    /// What a write of one call would come to, as of now: every check, the
    /// stored state's included, and nothing written.
    ///
    /// # Errors
    /// [`WriteError`], as its variants say.
    pub async fn preview(&self, write: Write, now: Timestamp) -> Result<Written, WriteError> {
        let command = match write.action {
            Action::One(command) => command,
            Action::CreateFresh(draft) => Command::Create(draft),
            Action::CreateAll(_) => return Err(WriteError::Internal),
        };
        let state = self.get(vec![command.uid()]).await?.pop();
        let step = machine::apply(state.as_deref(), &command);
        match step.map_err(|rejection| WriteError::Rejected {
            place: 0,
            rejection,
        })? {
            Step::Change(_, mut call) => {
                Arc::make_mut(&mut call).commit(0, now);
                Ok(vec![call])
            }
            Step::Unchanged => Ok(state.into_iter().collect()),
            Step::Absent => Ok(Vec::new()),
        }
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
        let in_time = deadline.checked_sub(TIME_TO_ANSWER).unwrap_or(deadline);
        let give_up = in_time.min(Instant::now() + MAX_REVISION_WAIT);
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
    /// Opens the store: waits for the database, with a line in the log for each
    /// attempt, brings it to this release's schema (or only checks it, without
    /// `migrate`), and watches it from then on.
    ///
    /// # Errors
    /// [`OpenError`], for what waiting does not mend.
    pub async fn open(&self, migrate: bool) -> Result<(), OpenError> {
        let mut retry_after = FIRST_OPEN_RETRY;
        while let Err(error) = self.prepare(migrate).await {
            let OpenError::Connect(_) = error else {
                return Err(error);
            };
            warn!("{error}; trying again in {} ms", retry_after.as_millis());
            sleep(retry_after).await;
            retry_after = (retry_after * 2).min(LAST_OPEN_RETRY);
        }
        let (connector, stop) = (&self.connector, &self.stop);
        let watch = self.availability.clone();
        self.availability.report_up();
        self.tasks
            .spawn(watch.watch(connector.clone(), stop.clone()));
        self.tasks.spawn(partitions::keep(
            connector.clone(),
            self.availability.clone(),
            stop.clone(),
        ));
        Ok(())
    }

    async fn prepare(&self, migrate: bool) -> Result<(), OpenError> {
        if migrate {
            migrations::migrate(&self.connector).await?;
        } else {
            check_migrations(&self.connector).await?;
        }
        partitions::tend(&self.connector)
            .await
            .map_err(OpenError::Connect)
    }

    /// Waits until what was accepted is done and the tasks have ended. Every
    /// [`Store`] must be gone, or this waits for it.
    pub async fn finish(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
