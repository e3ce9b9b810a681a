//! Whether the database can be reached. One task decides it, by pinging: what meets a
//! broken connection only asks it to look at once, because a connection may break while
//! the database is well. A request that fails may be refused as unavailable all the same: that
//! says nothing about the next one.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use diesel::{QueryableByName, data_types::PgTimestamp, pg::sql_types::Timestamptz, sql_query};

use super::{clock::Clock, connector::Connector, role::Role, session::Session, throttle::Throttle};
use crate::store::{
    error::{OpenError, ReadError},
    values::from_sql_time,
};

const PING_EVERY: Duration = Duration::from_secs(1);
/// However many ask for it.
const PING_NO_MORE_THAN_EVERY: Duration = Duration::from_millis(50);
/// How long the answer to a ping may take; connecting has limits of its own.
const PING_LIMIT: Duration = Duration::from_secs(2);
/// A connection that is cut off so soon is tried again at once, so often in all.
const CUT_OFF_WITHIN: Duration = Duration::from_millis(500);
const PING_ATTEMPTS: u32 = 3;
/// Between two lines in the log about a lack of connections.
const SAY_SHORT_EVERY: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Whether the database can be reached. Clones share it.
#[derive(Debug, Clone)]
pub(in crate::store) struct Availability {
    up: watch::Sender<bool>,
    suspected: Arc<Notify>,
    complaints: Throttle,
    shortages: Throttle,
}

impl Availability {
    /// Starts out as "unavailable".
    pub(in crate::store) fn new() -> Self {
        Self {
            up: watch::Sender::new(false),
            suspected: Arc::default(),
            complaints: Throttle::default(),
            shortages: Throttle::every(SAY_SHORT_EVERY),
        }
    }

    pub(in crate::store) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Reports the database as available.
    pub(in crate::store) fn report_up(&self) {
        self.up.send_replace(true);
    }

    /// Asks for a ping now: a connection broke.
    pub(in crate::store) fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// The error to return when there is no connection for `purpose`; the reason is logged, now and
    /// then. A database that has none left is available: only a ping says otherwise.
    pub(in crate::store) fn no_session(&self, purpose: &str, error: OpenError) -> ReadError {
        if let OpenError::NoConnectionLeft { .. } = error {
            if let Some(kept_back) = self.shortages.may_say("") {
                warn!(kept_back, "no connection for {purpose}: {error}");
            }
            return ReadError::Overloaded;
        }
        let reason = &error.reason();
        if let Some(kept_back) = self.complaints.may_say(reason) {
            warn!(
                kept_back,
                "no connection to the database for {purpose}: {reason}"
            );
        }
        self.suspect();
        ReadError::Unavailable
    }

    pub(in crate::store) fn subscribe(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// The watching task: owned by the store, ends with `stop`.
    pub(in crate::store) async fn watch(
        self,
        connector: Connector,
        clock: Clock,
        stop: CancellationToken,
    ) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_watch(connector, clock) => {}
        }
    }

    async fn keep_watch(self, connector: Connector, clock: Clock) {
        let mut session = None;
        let mut retry_after = FIRST_RETRY;
        loop {
            let reached = match ping(&connector, &clock, &mut session).await {
                Ok(()) => Ok(()),
                // It is there, but no way to look further: what was true stays true.
                Err(OpenError::NoConnectionLeft { .. }) if self.is_up() => Ok(()),
                Err(error) => Err(error.reason()),
            };
            let was_up = self.up.send_replace(reached.is_ok());
            match (was_up, &reached) {
                (true, Err(reason)) => {
                    warn!("the database is unavailable: {reason}; retrying");
                }
                (false, Ok(())) => info!("the database is available again"),
                _ => {}
            }
            if reached.is_err() {
                sleep(retry_after).await;
                retry_after = (retry_after * 2).min(LAST_RETRY);
                continue;
            }
            retry_after = FIRST_RETRY;
            sleep(PING_NO_MORE_THAN_EVERY).await;
            // Elapsed or suspected: both mean to look.
            let _ = timeout(PING_EVERY, self.suspected.notified()).await;
        }
    }
}

/// Pings over the session that is there, and if that fails over a new one: its own
/// connection may be all that broke, and the next one too.
async fn ping(
    connector: &Connector,
    clock: &Clock,
    session: &mut Option<Session>,
) -> Result<(), OpenError> {
    let mut was_silent = false;
    if let Some(open) = session.take() {
        match answer(&open, clock).await {
            Ok(()) => {
                *session = Some(open);
                return Ok(());
            }
            Err(Silence::Ended(_)) => {}
            Err(Silence::Lasting) => was_silent = true,
        }
    }
    let mut attempts = 1;
    loop {
        let started = Instant::now();
        let error = match connect(connector, clock).await {
            Ok(open) => {
                if was_silent {
                    // What is lost on its connection may be lost on all that are as old.
                    connector.abandon_all_but(&open);
                }
                *session = Some(open);
                return Ok(());
            }
            Err(error) => error,
        };
        // Cut off rather than not there.
        if attempts == PING_ATTEMPTS || started.elapsed() > CUT_OFF_WITHIN {
            return Err(error);
        }
        attempts += 1;
    }
}

async fn connect(connector: &Connector, clock: &Clock) -> Result<Session, OpenError> {
    let session = connector.connect(Role::Maintain).await?;
    match answer(&session, clock).await {
        Ok(()) => Ok(session),
        Err(Silence::Ended(reason)) => Err(OpenError::Connect(reason)),
        Err(Silence::Lasting) => Err(OpenError::Connect(format!(
            "no response within {} s",
            PING_LIMIT.as_secs()
        ))),
    }
}

/// Why a ping has no answer.
enum Silence {
    /// The connection has ended.
    Ended(String),
    /// Nothing comes.
    Lasting,
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Timestamptz)]
    clock: PgTimestamp,
}

/// Asks for the time, which is as good as anything to ask for.
async fn answer(session: &Session, clock: &Clock) -> Result<(), Silence> {
    let query = sql_query("SELECT clock_timestamp() AS clock");
    let asked_at = Instant::now();
    match timeout(PING_LIMIT, session.row::<_, Answer>(query)).await {
        Ok(Ok(answer)) => {
            clock.database_says(from_sql_time(answer.clock), asked_at.into_std());
            Ok(())
        }
        Ok(Err(error)) => Err(Silence::Ended(error.to_string())),
        Err(_) => Err(Silence::Lasting),
    }
}
