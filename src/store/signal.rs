//! The word among replicas that there are new changes: NOTIFY, as a hint. Whoever
//! misses it finds the changes by looking.
//!
//! A NOTIFY takes a lock on the whole cluster at its commit, so it is sent outside
//! the writes, a bounded number of times a second, and only while another replica
//! listens.

use std::{sync::Arc, time::Duration};

use diesel::{QueryableByName, sql_query, sql_types::BigInt};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::StreamExt;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::connection::{Connector, Role};
use crate::domain::Uuid;

/// Between two NOTIFYs: at most a hundred a second.
const NOTIFY_EVERY: Duration = Duration::from_millis(10);
const COUNT_LISTENERS_EVERY: Duration = Duration::from_secs(1);
const RECONNECT_AFTER: Duration = Duration::from_millis(500);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends and receives the hint. Clones share it.
#[derive(Debug, Clone)]
pub struct Signal {
    /// This process's name for itself, to know its own word by.
    own: Arc<str>,
    /// We have committed.
    committed: Arc<Notify>,
    /// Another replica says that it has.
    heard: Arc<Notify>,
}

impl Signal {
    pub(super) fn new() -> Self {
        Self {
            own: Uuid::new_v4().to_string().into(),
            committed: Arc::default(),
            heard: Arc::default(),
        }
    }

    /// Waits for the word of another replica, or for one that was not waited for.
    pub async fn heard(&self) {
        self.heard.notified().await;
    }

    /// Tells the other replicas, soon.
    pub fn tell(&self) {
        self.committed.notify_one();
    }

    /// Listens: owned by the store, ends with `stop`.
    pub(super) async fn listen(self, connector: Connector, stop: CancellationToken) {
        loop {
            let listening = async {
                let Ok(mut connection) = connector.connect(Role::Listen).await else {
                    return;
                };
                if connection
                    .batch_execute("LISTEN voicecall_changes")
                    .await
                    .is_err()
                {
                    return;
                }
                // What was missed while nobody listened.
                self.heard.notify_one();
                let mut notifications = std::pin::pin!(connection.notifications_stream());
                while let Some(Ok(word)) = notifications.next().await {
                    if *word.payload != *self.own {
                        self.heard.notify_one();
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

    /// Tells: owned by the store, ends with `stop`.
    pub(super) async fn notify(self, connector: Connector, stop: CancellationToken) {
        let mut connection: Option<AsyncPgConnection> = None;
        let mut others = Others::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.committed.notified() => {}
            }
            if connection.is_none() {
                connection = connector.connect(Role::Notify).await.ok();
            }
            if let Some(open) = &mut connection {
                let told = timeout(STATEMENT_TIMEOUT, others.tell(open, &self.own)).await;
                if !matches!(told, Ok(Ok(()))) {
                    connection = None;
                }
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
    async fn tell(
        &mut self,
        connection: &mut AsyncPgConnection,
        own: &str,
    ) -> diesel::QueryResult<()> {
        let is_old = |at: Instant| at.elapsed() >= COUNT_LISTENERS_EVERY;
        if self.counted_at.is_none_or(is_old) {
            let name = Role::Listen.application_name();
            let listeners: Listeners = sql_query(format!(
                "SELECT count(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = '{name}'"
            ))
            .get_result(connection)
            .await?;
            self.listen = listeners.count > 1;
            self.counted_at = Some(Instant::now());
        }
        if self.listen {
            let notify = format!("NOTIFY voicecall_changes, '{own}'");
            connection.batch_execute(&notify).await?;
        }
        Ok(())
    }
}
