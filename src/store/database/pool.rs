//! Sessions for reads: bounded, and each read bounded by its caller's deadline, by the
//! database's clock and by ours.
//!
//! A read that failed is repeated on a new session where that may help: the session was
//! dead already, or holds a plan of what is no longer so. A read repeats nothing but itself.

use std::time::Duration;

use deadpool::managed::{self, Manager, Metrics, Object, PoolError, RecycleError, RecycleResult};
use diesel::{
    QueryResult,
    result::{DatabaseErrorKind, Error},
};
use futures_util::future;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, warn};

use super::{
    availability::Availability,
    connector::Connector,
    lease::Lease,
    role::Role,
    session::{Failure, Session},
};
use crate::store::error::{OpenError, ReadError};

/// How long after the deadline our side waits for the database to say that it is over.
const GRACE: Duration = Duration::from_millis(500);

/// How a read goes on after it has failed: one place for all reads.
#[derive(Debug, Default)]
pub(in crate::store) struct Attempts {
    lost: u32,
    refused: u32,
    /// One of them had waited, for a lock say, before it was refused.
    has_waited: bool,
}

impl Attempts {
    /// New sessions for one read, after the one it had was lost.
    const LOST: u32 = 1;
    /// New sessions for one read that was refused. An administrator's cancel looks like
    /// any refusal, because the driver keeps the SQLSTATE to itself, but does not strike the
    /// same read again and again.
    const REFUSED: u32 = 5;
    /// What the database refuses because of a fault in the statement it refuses at once.
    const FAULT_TIME: Duration = Duration::from_millis(100);

    /// Whether the read is to be repeated on a new session, after it failed when it had run
    /// for so long; else what it is answered.
    pub(in crate::store) fn after(
        &mut self,
        failure: &Failure,
        ran_for: Duration,
    ) -> Result<(), ReadError> {
        self.has_waited |= ran_for >= Self::FAULT_TIME;
        match failure {
            Failure::Lost(error) => {
                self.lost += 1;
                if self.lost <= Self::LOST {
                    return Ok(());
                }
                warn!(%error, "a read lost its connection to the database");
                Err(ReadError::Unavailable)
            }
            Failure::Refused(error) => {
                self.refused += 1;
                if self.refused <= Self::REFUSED {
                    debug!(%error, "the database refused a read; retrying on a new connection");
                    return Ok(());
                }
                error!(%error, "the database refused a read");
                Err(match error {
                    Error::DatabaseError(
                        DatabaseErrorKind::SerializationFailure
                        | DatabaseErrorKind::ReadOnlyTransaction,
                        _,
                    ) => ReadError::Unavailable,
                    _ if self.has_waited => ReadError::Unavailable,
                    _ => ReadError::Internal,
                })
            }
        }
    }
}

pub(super) struct Sessions {
    connector: Connector,
    role: Role,
}

impl Manager for Sessions {
    type Type = Session;
    type Error = OpenError;

    async fn create(&self) -> Result<Session, OpenError> {
        if self.role.gives_way() {
            self.connector.connect(self.role).await
        } else {
            self.connector.connect_first(self.role).await
        }
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<OpenError> {
        if session.is_lost() {
            return Err(RecycleError::message("the session is lost"));
        }
        Ok(())
    }
}

/// A bounded pool of sessions. Clones share it.
#[derive(Clone)]
pub(in crate::store) struct Pool {
    pool: managed::Pool<Sessions>,
    availability: Availability,
}

impl Pool {
    pub(in crate::store) fn new(
        connector: &Connector,
        availability: &Availability,
        role: Role,
        connections: usize,
    ) -> Self {
        let sessions = Sessions {
            connector: connector.clone(),
            role,
        };
        let pool = managed::Pool::builder(sessions)
            .max_size(connections)
            .build();
        let pool = pool.expect("a pool without timeouts needs no runtime");
        connector.slots().add_wanted(connections);
        if role.gives_way() {
            let idle = pool.weak();
            connector.slots().on_shortage(Box::new(move || {
                let pool = idle.upgrade();
                pool.inspect(|pool| drop(pool.retain(|_, _| false)))
                    .is_some()
            }));
        }
        Self {
            pool,
            availability: availability.clone(),
        }
    }

    /// Runs statements that only read, under a statement_timeout that ends at the
    /// deadline, which is set in the same round trip.
    pub(in crate::store) async fn run<T>(
        &self,
        deadline: Instant,
        statement: impl AsyncFnOnce(&Session) -> QueryResult<T> + Clone,
    ) -> Result<T, ReadError> {
        if !self.availability.is_up() {
            return Err(ReadError::Unavailable);
        }
        // On the heap: it is large, and part of the future of every request that may
        // come here but seldom does.
        Box::pin(self.run_on_sessions(deadline, statement)).await
    }

    async fn run_on_sessions<T>(
        &self,
        deadline: Instant,
        statement: impl AsyncFnOnce(&Session) -> QueryResult<T> + Clone,
    ) -> Result<T, ReadError> {
        let mut attempts = Attempts::default();
        let mut failed_at = None;
        loop {
            let session = Lease::new(self.session(deadline, failed_at).await?);
            let started = Instant::now();
            let left = deadline.saturating_duration_since(started);
            let read = future::try_join(set_timeout(&session, left), statement.clone()(&session));
            let Ok(read) = timeout_at(deadline + GRACE, read).await else {
                // Dropped while its statement runs, which is then cancelled.
                drop(session);
                self.availability.suspect();
                return Err(ReadError::DeadlineExceeded);
            };
            let failure = match read {
                Ok(((), value)) => {
                    if self.gives_way() {
                        session.discard();
                    } else {
                        session.give_back();
                    }
                    return Ok(value);
                }
                Err(error) => session.judge(error).await,
            };
            session.discard();
            failed_at = Some(Instant::now().into_std());
            if Instant::now() >= deadline {
                return Err(ReadError::DeadlineExceeded);
            }
            if let Err(error) = attempts.after(&failure, started.elapsed()) {
                self.availability.suspect();
                return Err(error);
            }
        }
    }

    /// Whether something that comes first waits for one of the connections.
    fn gives_way(&self) -> bool {
        let Sessions { connector, role } = self.pool.manager();
        role.gives_way() && connector.slots().are_short()
    }

    /// A session; after a failure one that was made since: those that are as old as the one
    /// that failed are dead too, or have the same plans.
    async fn session(
        &self,
        deadline: Instant,
        made_since: Option<std::time::Instant>,
    ) -> Result<Object<Sessions>, ReadError> {
        loop {
            let session = timeout_at(deadline, self.pool.get())
                .await
                .map_err(|_| ReadError::DeadlineExceeded)?
                .map_err(|error| {
                    let error = match error {
                        PoolError::Backend(error) => error,
                        other => OpenError::Connect(other.to_string()),
                    };
                    self.availability.no_session("reads", error)
                })?;
            let created = Object::metrics(&session).created;
            if made_since.is_none_or(|since| created >= since) {
                return Ok(session);
            }
            drop(Object::take(session));
        }
    }
}

async fn set_timeout(session: &Session, left: Duration) -> QueryResult<()> {
    // Rounded up: an error before the deadline is taken for the database's own.
    let millis = left.as_millis().saturating_add(1).min(3_600_000);
    session
        .batch(&format!("SET statement_timeout = {millis}"))
        .await
}
