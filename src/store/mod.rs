//! Calls, kept in PostgreSQL: the only home of diesel and of SQL.
//!
//! - [`Store`] is the whole of it to the layers above
//! - `commit`: how writes are committed, each batch by one statement
//! - `read`: look-ups, lists and statistics
//! - `change_log`: the log of changes, read
//! - `maintenance`: partitions, erasure after purges, ANALYZE
//! - `supervision`: what the end of a task means; feed and server have tasks too. `tasks` are
//!   the store's own
//! - `following`: what the feed needs to follow the log
//! - `database`: sessions, the only home of the driver; hosts, pools, clocks, migrations
//! - `schema`, `columns`, `values` and `row`: tables, and rows to calls and back
//!
//! It deliberately knows nothing of gRPC, of where deadlines come from, or of who is calling.

mod change_log;
mod columns;
mod commit;
mod database;
mod error;
mod following;
mod maintenance;
mod read;
mod row;
mod schema;
mod supervision;
mod tasks;
mod values;

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use change_log::{
    log::{Log, LogEntry, LogError, LogPage, Position, Tail},
    notification::Notifications,
};
pub use commit::{
    committed_batch::CommittedBatch,
    write::{Action, ImportOutcome, Imported, Preview, RecordError, RequestKey, Write, Written},
};
pub use database::{Connector, check_migrations, migrate};
pub use error::{OpenError, ReadError, WriteError};
pub use following::{Following, LogTime};
pub use maintenance::log_partitions::Retention;
pub use read::{
    lists::{CallPage, PageQuery},
    statistics::{Stats, StatsQuery},
    worker::{PLANNED_ONCE_FROM, ReadLimits},
};
pub use supervision::{Supervisor, TaskEnded};
pub use tasks::StoreTasks;

use self::{
    change_log::head::HeadHint,
    commit::{committed_batch::CommittedBatches, writer::Writer},
    database::{Availability, Clock, Pool, Role},
    maintenance::{analyze, upkeep::Upkeep},
    read::{lists::Lists, statistics::Statistics, worker::ReadWorkers},
    tasks::Tasks,
};
use crate::domain::{
    Call, ChangeKind, ConflictPolicy, Narrowing, Record, Revision, Timestamp, Uuid, machine,
    machine::{CallState, Step},
};

/// Connections that read the log: for the follower, and for all readers that have to catch up.
const FOLLOW_CONNECTIONS: usize = 1;
const CATCH_UP_CONNECTIONS: usize = 4;
/// Connections for snapshots and exports, and as many for those with simple filters: what
/// reads all calls never stands before a list.
const SNAPSHOT_CONNECTIONS: usize = 2;
/// One ANALYZE of a table waits for the other anyway.
const ANALYZE_CONNECTIONS: usize = 1;

/// How long a read waits for its min_revision at most.
const MAX_REVISION_WAIT: Duration = Duration::from_secs(5);
const LOOK_FOR_REVISION_EVERY: Duration = Duration::from_millis(20);
/// How long before the deadline the wait ends, so that the client gets the reason and not just
/// DEADLINE_EXCEEDED.
const TIME_TO_ANSWER: Duration = Duration::from_millis(100);

/// How large the store's parts may grow.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Writes that wait for the writer.
    pub write_queue: usize,
    /// Of reads.
    pub reads: ReadLimits,
    /// How the change log is kept.
    pub retention: Retention,
}

/// The calls, their changes, and the idempotency records. Clones share it.
///
/// A new store responds to everything with "the database is unavailable" until it has been
/// opened.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    workers: ReadWorkers,
    statistics: Statistics,
    snapshots: Lists,
    analyze: Pool,
    log: Log,
    head: HeadHint,
    clock: Clock,
    availability: Availability,
}

impl Store {
    /// A store on the database that `connector` reaches, whose callers run on these
    /// threads: at least one, each with a scheduler of its own. Writes and all else that
    /// is done once for all of them run where this is called. The tasks run under the
    /// supervisor.
    #[must_use]
    pub fn new(
        connector: Connector,
        limits: Limits,
        callers: &[Handle],
        supervisor: &Supervisor,
    ) -> (Self, Following, StoreTasks) {
        let tasks = Tasks {
            tracker: TaskTracker::new(),
            supervisor: supervisor.clone(),
            opened: CancellationToken::new(),
        };
        let availability = Availability::new();
        let head = HeadHint::default();
        let notifications = Notifications::new();
        let (committed, commits) = CommittedBatches::new();
        let pool = |role, connections| Pool::new(&connector, &availability, role, connections);
        let clock = Clock::new();
        let upkeep = Upkeep::new(connector.clone(), limits.retention, clock.clone());
        let writer = Writer::start(
            &upkeep,
            &availability,
            &head,
            &committed,
            limits.write_queue,
            &tasks,
        );
        let following = Following {
            commits,
            log: Log::new(pool(Role::Follow, FOLLOW_CONNECTIONS)),
            notifications: notifications.clone(),
            log_time: LogTime(writer.clone()),
        };
        let store = Self {
            writer,
            workers: ReadWorkers::start(callers, &connector, &availability, limits.reads, &tasks),
            statistics: Statistics::new(pool(
                Role::Statistics,
                limits.reads.statistics_connections,
            )),
            snapshots: Lists::new(
                pool(Role::List, SNAPSHOT_CONNECTIONS),
                pool(Role::PlainList, SNAPSHOT_CONNECTIONS),
                limits.reads.planned_once_from,
            ),
            analyze: pool(Role::List, ANALYZE_CONNECTIONS),
            log: Log::new(pool(Role::Log, CATCH_UP_CONNECTIONS)),
            head,
            clock: clock.clone(),
            availability: availability.clone(),
        };
        let tasks = StoreTasks {
            connector,
            availability,
            clock,
            upkeep,
            notifications,
            tasks,
            stop: CancellationToken::new(),
        };
        (store, following, tasks)
    }

    /// Writes, durably. The write takes place or not as a whole.
    ///
    /// # Errors
    /// [`WriteError`], as its variants say.
    pub async fn write(&self, write: Write) -> Result<Written, WriteError> {
        self.writer.submit(write).await
    }

    /// Imports records, no two with the same uid, each by itself; returns the result of each.
    /// Waits while the queue is full, where [`Store::write`] would refuse. `principal` imports
    /// them.
    ///
    /// # Errors
    /// [`WriteError`], of all records alike; never that one is rejected.
    pub async fn import(
        &self,
        records: Arc<[Record]>,
        policy: ConflictPolicy,
        principal: Option<Arc<str>>,
    ) -> Result<Vec<Result<Imported, RecordError>>, WriteError> {
        let write = Write {
            action: Action::Import(records, policy),
            request: None,
            principal,
            narrowing: None,
        };
        Ok(self.writer.submit_when_room(write).await?.imported)
    }

    /// The time by which the log goes: the database's, as far as it is believed.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.log_now()
    }

    /// What a write of one call would come to now: every check, the
    /// stored state's included, and nothing written.
    ///
    /// # Errors
    /// [`WriteError`], as its variants say.
    pub async fn preview(&self, write: Write, deadline: Instant) -> Result<Preview, WriteError> {
        let uid = write.first_uid();
        let narrowing = write.narrowing;
        let calls = self.get(vec![uid], narrowing.clone(), 0, deadline);
        let call = calls.await?.pop();
        let state = match call.as_deref() {
            Some(call) => CallState::Call(call),
            None if self.is_purged(uid, deadline).await? => CallState::Purged,
            None => CallState::Absent,
        };
        let step = match &write.action {
            Action::One(command) => machine::apply(state, command, narrowing.as_deref()),
            Action::CreateFresh(draft) => machine::create(draft, narrowing.as_deref())
                .map(|call| Step::Change(ChangeKind::Created, call)),
            Action::CreateAll(_) | Action::Import(..) | Action::ConfirmTime => {
                return Err(WriteError::Internal);
            }
        };
        let step = step.map_err(|rejection| WriteError::Rejected {
            place: 0,
            rejection,
        })?;
        Ok(match step {
            Step::Change(_, call) => Preview::Change(Box::new(call)),
            Step::Unchanged => call.map_or(Preview::Absent, Preview::Unchanged),
            Step::Absent | Step::Purge => Preview::Absent,
        })
    }

    /// Looks up calls, no uid twice; those that exist and that a caller with this narrowing may
    /// see come back in the order of `uids`, deleted ones included, as of `min_revision` or
    /// later.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn get(
        &self,
        uids: Vec<Uuid>,
        narrowing: Option<Arc<Narrowing>>,
        min_revision: Revision,
        deadline: Instant,
    ) -> Result<Vec<Arc<Call>>, ReadError> {
        let lookups = &self.workers.here().lookups;
        if min_revision == 0 {
            return lookups.get(uids, narrowing, 0).await;
        }
        let give_up = give_up(deadline);
        loop {
            let found = lookups.get(uids.clone(), narrowing.clone(), min_revision);
            match found.await {
                Err(ReadError::RevisionNotReached { current_revision }) => {
                    let current = current_revision;
                    self.reach(min_revision, current, give_up, deadline).await?;
                }
                result => return result,
            }
        }
    }

    /// Whether a call with this uid was purged.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn is_purged(&self, uid: Uuid, deadline: Instant) -> Result<bool, ReadError> {
        let purged = self.workers.here().lookups.is_purged(uid);
        timeout_at(deadline, purged)
            .await
            .unwrap_or(Err(ReadError::DeadlineExceeded))
    }

    /// The change log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where the log ends, at `min_revision` or later.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn tail(&self, min_revision: Revision, deadline: Instant) -> Result<Tail, ReadError> {
        let give_up = give_up(deadline);
        loop {
            let tail = self.log.tail(deadline).await?;
            let current = tail.head.revision;
            if current >= min_revision {
                return Ok(tail);
            }
            self.reach(min_revision, current, give_up, deadline).await?;
        }
    }

    /// Reads a page of a list, as of `min_revision` or later.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn page(
        &self,
        query: &PageQuery,
        min_revision: Revision,
        deadline: Instant,
    ) -> Result<CallPage, ReadError> {
        let lists = &self.workers.here().lists;
        self.page_of(lists, query, min_revision, deadline).await
    }

    /// The same for a reader of all calls, which leaves the connections of lists alone.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn snapshot_page(
        &self,
        query: &PageQuery,
        min_revision: Revision,
        deadline: Instant,
    ) -> Result<CallPage, ReadError> {
        self.page_of(&self.snapshots, query, min_revision, deadline)
            .await
    }

    async fn page_of(
        &self,
        lists: &Lists,
        query: &PageQuery,
        min_revision: Revision,
        deadline: Instant,
    ) -> Result<CallPage, ReadError> {
        let give_up = give_up(deadline);
        loop {
            let page = lists.page(query, self.head.get(), deadline).await?;
            let current = page.position.revision;
            self.head.set(current);
            if current >= min_revision {
                return Ok(page);
            }
            self.reach(min_revision, current, give_up, deadline).await?;
        }
    }

    /// Refreshes what the database's planner knows of the calls, which the database does
    /// by itself only some time after their number has grown a lot.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn analyze(&self, deadline: Instant) -> Result<(), ReadError> {
        analyze::calls(&self.analyze, deadline).await
    }

    /// Counts calls, as of `min_revision` or later.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn count(
        &self,
        query: &StatsQuery,
        min_revision: Revision,
        deadline: Instant,
    ) -> Result<Stats, ReadError> {
        let give_up = give_up(deadline);
        loop {
            let stats = self.statistics.count(query, deadline).await?;
            let current = stats.revision;
            self.head.set(current);
            if current >= min_revision {
                return Ok(stats);
            }
            self.reach(min_revision, current, give_up, deadline).await?;
        }
    }

    /// Whether there is a time zone of this name.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn knows_time_zone(&self, name: &str, deadline: Instant) -> Result<bool, ReadError> {
        self.statistics.knows_time_zone(name, deadline).await
    }

    /// Waits until the log has reached a revision, after a read whose own snapshot had
    /// reached `current` only. What this process remembers is no help: the log may have
    /// been set back since.
    async fn reach(
        &self,
        revision: Revision,
        mut current: Revision,
        give_up: Instant,
        deadline: Instant,
    ) -> Result<(), ReadError> {
        // At least once, because a read may come from another server than the look.
        loop {
            if Instant::now() + LOOK_FOR_REVISION_EVERY >= give_up {
                return Err(ReadError::RevisionNotReached {
                    current_revision: current,
                });
            }
            sleep(LOOK_FOR_REVISION_EVERY).await;
            // One query serves all that wait on this thread.
            let lookups = &self.workers.here().lookups;
            let look = lookups.get(Vec::new(), None, revision);
            match timeout_at(deadline, look).await {
                Ok(Err(ReadError::RevisionNotReached { current_revision })) => {
                    current = current_revision;
                }
                Ok(result) => return result.map(drop),
                Err(_) => return Err(ReadError::DeadlineExceeded),
            }
        }
    }

    /// Whether the database is available, now and from now on.
    #[must_use]
    pub fn availability(&self) -> watch::Receiver<bool> {
        self.availability.subscribe()
    }
}

/// When a wait for a revision ends.
fn give_up(deadline: Instant) -> Instant {
    let in_time = deadline.checked_sub(TIME_TO_ANSWER).unwrap_or(deadline);
    in_time.min(Instant::now() + MAX_REVISION_WAIT)
}
