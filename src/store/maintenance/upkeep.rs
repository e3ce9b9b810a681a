//! The upkeep of partitions: makes them before they are needed, and drops those that have expired.
//! Making comes before dropping, and each step is on its own: one that has to wait delays no other.
//!
//! It is woken by a timer, by the log when it has come so far, and by a commit that found
//! no partition, which waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use diesel::QueryResult;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    idempotency_partitions,
    log_partitions::{self, Retention},
};
use crate::{
    domain::Revision,
    store::{
        commit::session::WriterSessions,
        database::{Availability, Clock, Connector, Lock, Role, Session},
        error::OpenError,
    },
};

const CHECK_EVERY: Duration = Duration::from_secs(60);
const MIN_CHECK_EVERY: Duration = Duration::from_millis(200);
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a process waits while another one makes partitions.
const MAKE_WAIT: Duration = Duration::from_secs(5);
const LOOK_FOR_LOCK_EVERY: Duration = Duration::from_millis(20);

/// See the module. Clones share what they know.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    connector: Connector,
    retention: Retention,
    clock: Clock,
    /// From this revision on more partitions are to be made.
    make_from: Arc<AtomicI64>,
    wake: Arc<Notify>,
}

impl Upkeep {
    pub(crate) fn new(connector: Connector, retention: Retention, clock: Clock) -> Self {
        Self {
            connector,
            retention,
            clock,
            make_from: Arc::new(AtomicI64::new(i64::MAX)),
            wake: Arc::default(),
        }
    }

    /// Sessions to write to the tables, for one committer.
    pub(crate) fn writer_sessions(&self) -> WriterSessions {
        WriterSessions::new(self.connector.clone(), self.clock.clone())
    }

    /// Counts the connections that writers may have.
    pub(crate) fn want_connections(&self, connections: usize) {
        self.connector.slots().add_wanted(connections);
    }

    /// Takes note of how far the log reaches.
    pub(crate) fn log_reached(&self, revision: Revision) {
        if revision >= self.make_from.load(Ordering::Relaxed) {
            self.make_from.store(i64::MAX, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    /// The task: owned by the store, ends with `stop`.
    pub(crate) async fn keep(self, availability: Availability, stop: CancellationToken) {
        // A short retention needs more frequent checks.
        let check_every = CHECK_EVERY
            .min(self.retention.keep / 4)
            .max(MIN_CHECK_EVERY);
        loop {
            let tended = tokio::select! {
                () = stop.cancelled() => return,
                tended = self.tend() => tended,
            };
            let pause = match tended {
                Ok(()) => check_every,
                Err(error) => {
                    if availability.is_up() {
                        warn!(%error, "cannot maintain the partitions; retrying");
                    }
                    RETRY_AFTER.min(check_every)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// All of it, once.
    async fn tend(&self) -> Result<(), String> {
        self.make_partitions().await?;
        let session = self.session().await?;
        // Another process is dropping the same partitions.
        if !Lock::Drops.try_take(&session).await.map_err(text)? {
            return Ok(());
        }
        let now = self.clock.expiry_now();
        let log = log_partitions::drop_expired(&session, self.retention, now).await;
        let records = idempotency_partitions::drop_expired(&session, now).await;
        log.and(records).map_err(text)
    }

    /// Makes the partitions that commits need next; waits while another process does.
    pub(crate) async fn make_partitions(&self) -> Result<(), String> {
        let session = self.session().await?;
        if !takes_lock(&session).await.map_err(text)? {
            return Err("another process makes partitions all the time".to_owned());
        }
        let make_from = log_partitions::make(&session, self.retention).await;
        let records = idempotency_partitions::make(&session, &self.clock).await;
        self.make_from
            .store(make_from.map_err(text)?, Ordering::Relaxed);
        records.map_err(text)
    }

    /// A session for one run: its locks end with it.
    async fn session(&self) -> Result<Session, String> {
        let session = self.connector.connect_first(Role::Maintain).await;
        session.map_err(OpenError::reason)
    }
}

/// Takes the lock of those who make partitions, which takes them milliseconds. One that has had it
/// all the time hangs: its process is frozen, or it waits for a lock although its time is up,
/// because the database's clock went back. It is ended.
async fn takes_lock(session: &Session) -> QueryResult<bool> {
    let mut holder = None;
    for _ in 0..2 {
        let until = Instant::now() + MAKE_WAIT;
        while Instant::now() < until {
            if Lock::Makes.try_take(session).await? {
                return Ok(true);
            }
            if holder.is_none() {
                holder = Lock::Makes.holder(session).await?;
            }
            sleep(LOOK_FOR_LOCK_EVERY).await;
        }
        let still = Lock::Makes.holder(session).await?;
        if let Some(pid) = still.filter(|_| still == holder) {
            warn!(pid, "ended a session that made partitions for too long");
            session
                .batch(&format!("SELECT pg_terminate_backend({pid})"))
                .await?;
        }
        holder = None;
    }
    Ok(false)
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err calls")]
fn text(error: diesel::result::Error) -> String {
    error.to_string()
}
