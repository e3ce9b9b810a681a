//! Opens the store, and owns its tasks until they have ended.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{
    change_log::notification::Notifications,
    check_migrations,
    database::{self, Availability, Clock, Connector},
    error::OpenError,
    maintenance::{erasure, upkeep::Upkeep},
};

const FIRST_OPEN_RETRY: Duration = Duration::from_millis(100);
const LAST_OPEN_RETRY: Duration = Duration::from_secs(5);

/// Opens the store and ends its tasks, which it owns.
#[derive(Debug)]
pub struct StoreTasks {
    pub(super) connector: Connector,
    pub(super) availability: Availability,
    pub(super) clock: Clock,
    pub(super) upkeep: Upkeep,
    pub(super) notifications: Notifications,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
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
            .spawn(watch.watch(connector.clone(), self.clock.clone(), stop.clone()));
        let upkeep = self.upkeep.clone();
        self.tasks
            .spawn(upkeep.keep(self.availability.clone(), stop.clone()));
        self.tasks.spawn(erasure::keep(
            connector.clone(),
            self.availability.clone(),
            stop.clone(),
        ));
        let (listen, notify) = (self.notifications.clone(), self.notifications.clone());
        self.tasks
            .spawn(listen.listen(connector.clone(), stop.clone()));
        self.tasks
            .spawn(notify.notify(connector.clone(), stop.clone()));
        Ok(())
    }

    async fn prepare(&self, migrate: bool) -> Result<(), OpenError> {
        database::durability::check(&self.connector).await?;
        if migrate {
            database::migrate(&self.connector).await?;
        } else {
            check_migrations(&self.connector).await?;
        }
        let made = self.upkeep.make_partitions().await;
        made.map_err(OpenError::Connect)
    }

    /// Waits until what was accepted is done and the tasks have ended. Every
    /// [`Store`](super::Store) must be gone, or this waits for it.
    pub async fn finish(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
