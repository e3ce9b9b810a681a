//! The notification that tells other replicas of new changes: NOTIFY, as a hint. A replica that
//! misses it finds the changes by polling.
//!
//! A NOTIFY takes a lock on the whole cluster at its commit, so it is sent outside
//! the writes, a bounded number of times a second, and only while another replica
//! listens.

use std::{sync::Arc, time::Duration};

use diesel::{QueryableByName, sql_query, sql_types::BigInt};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::Uuid,
    store::database::{Connector, Role, Session},
};

/// Between two NOTIFYs: at most a hundred a second.
const NOTIFY_EVERY: Duration = Duration::from_millis(10);
const COUNT_LISTENERS_EVERY: Duration = Duration::from_secs(1);
const RECONNECT_AFTER: Duration = Duration::from_millis(500);
/// After this long without a notification the listener checks its connection.
const SILENCE: Duration = Duration::from_secs(10);

/// Sends and receives the hint. Clones share it.
#[derive(Debug, Clone)]
pub struct Notifications {
    /// The name by which this process recognises its own notifications.
    own: Arc<str>,
    /// This process has committed.
    committed: Arc<Notify>,
    /// Another replica has committed.
    received: Arc<Notify>,
}

impl Notifications {
    pub(crate) fn new() -> Self {
        Self {
            own: Uuid::new_v4().to_string().into(),
            committed: Arc::default(),
            received: Arc::default(),
        }
    }

    /// Waits for a notification of another replica, or returns for one that came before.
    pub async fn received(&self) {
        self.received.notified().await;
    }

    /// Has the other replicas notified, soon.
    pub fn announce(&self) {
        self.committed.notify_one();
    }

    /// Listens: owned by the store, ends with `stop`.
    pub(crate) async fn listen(self, connector: Connector, stop: CancellationToken) {
        loop {
            let listening = async {
                if let Ok(session) = connector.connect(Role::Listen).await {
                    tokio::select! {
                        () = self.receive(&session) => {}
                        () = connector.slots().shortage() => {}
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = listening => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(RECONNECT_AFTER) => {}
            }
        }
    }

    /// Receives notifications until the session is lost.
    async fn receive(&self, session: &Session) {
        if session.batch("LISTEN voicecall_changes").await.is_err() {
            return;
        }
        // For those that were missed while nobody listened.
        self.received.notify_one();
        loop {
            match timeout(SILENCE, session.notification()).await {
                Ok(Some(sender)) if *sender != *self.own => self.received.notify_one(),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) if session.batch("SELECT 1").await.is_err() => return,
                Err(_) => {}
            }
        }
    }

    /// Sends notifications: owned by the store, ends with `stop`.
    pub(crate) async fn notify(self, connector: Connector, stop: CancellationToken) {
        let mut session: Option<Session> = None;
        let mut others = Others::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.committed.notified() => {}
                () = connector.slots().shortage(), if session.is_some() => {
                    session = None;
                    continue;
                }
            }
            let send = async {
                if session.is_none() {
                    session = connector.connect(Role::Notify).await.ok();
                }
                if let Some(open) = &session
                    && others.notify(open, &self.own).await.is_err()
                {
                    session = None;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = send => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(NOTIFY_EVERY) => {}
            }
        }
    }
}

/// Whether other replicas listen, as far as is known.
#[derive(Debug, Default)]
struct Others {
    listen: bool,
    counted_at: Option<Instant>,
}

#[derive(QueryableByName)]
struct Listeners {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl Others {
    async fn notify(&mut self, session: &Session, own: &str) -> diesel::QueryResult<()> {
        let is_old = |at: Instant| at.elapsed() >= COUNT_LISTENERS_EVERY;
        if self.counted_at.is_none_or(is_old) {
            let name = Role::Listen.application_name();
            let count = sql_query(format!(
                "SELECT count(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = '{name}'"
            ));
            let listeners: Listeners = session.row(count).await?;
            self.listen = listeners.count > 1;
            self.counted_at = Some(Instant::now());
        }
        if self.listen {
            let notify = format!("NOTIFY voicecall_changes, '{own}'");
            session.batch(&notify).await?;
        }
        Ok(())
    }
}
