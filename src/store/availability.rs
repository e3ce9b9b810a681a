//! Whether the database is there. Whoever meets a broken connection says so;
//! one task watches for its return, and pings it while nobody has a reason to.

use std::time::Duration;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connection::{Connector, Role};

const PING_EVERY: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// The shared word on whether the database is there. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Availability {
    up: watch::Sender<bool>,
}

impl Availability {
    /// Starts out as "away".
    pub(super) fn new() -> Self {
        Self {
            up: watch::Sender::new(false),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Says that the database is there.
    pub(super) fn report_up(&self) {
        self.up.send_replace(true);
    }

    /// Says that a connection broke.
    pub(super) fn report_down(&self) {
        self.up.send_if_modified(|up| std::mem::replace(up, false));
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// The watching task: owned by the store, ends with `stop`.
    pub(super) async fn watch(self, connector: Connector, stop: CancellationToken) {
        let mut connection = None;
        let mut retry_after = FIRST_RETRY;
        let mut reported = self.up.subscribe();
        loop {
            let there = ping(&connector, &mut connection).await;
            let was_there = self.up.send_replace(there);
            match (was_there, there) {
                (true, false) => warn!("the database is away; trying to reach it again"),
                (false, true) => info!("the database is there again"),
                _ => {}
            }
            reported.mark_unchanged();
            let pause = if there {
                retry_after = FIRST_RETRY;
                PING_EVERY
            } else {
                let pause = retry_after;
                retry_after = (retry_after * 2).min(LAST_RETRY);
                pause
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                _ = reported.wait_for(|up| !*up), if there => {}
            }
        }
    }
}

async fn ping(connector: &Connector, connection: &mut Option<AsyncPgConnection>) -> bool {
    let attempt = async {
        let mut open = match connection.take() {
            Some(open) => open,
            None => connector.connect(Role::Maintain).await.ok()?,
        };
        open.batch_execute("SELECT 1").await.ok()?;
        Some(open)
    };
    *connection = timeout(PING_TIMEOUT, attempt).await.ok().flatten();
    connection.is_some()
}
