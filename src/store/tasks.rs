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
    supervision::Supervisor,
};

const FIRST_OPEN_RETRY: Duration = Duration::from_millis(100);
const LAST_OPEN_RETRY: Duration = Duration::from_secs(5);
/// Each of the tasks has one connection, some of them only now and then.
const TASK_CONNECTIONS: usize = 5;

/// Owns the tasks of a store, each under its rule.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    pub(super) tracker: TaskTracker,
    pub(super) supervisor: Supervisor,
    /// Cancelled when the database is available for the first time.
    pub(super) opened: CancellationToken,
}

/// Opens the store and ends its tasks, which it owns.
#[derive(Debug)]
pub struct StoreTasks {
    pub(super) connector: Connector,
    pub(super) availability: Availability,
    pub(super) clock: Clock,
    pub(super) upkeep: Upkeep,
    pub(super) notifications: Notifications,
    pub(super) tasks: Tasks,
    pub(super) stop: CancellationToken,
}

impl StoreTasks {
    /// Opens the store: waits for the database, with a line in the log for each
    /// attempt, brings it to this release's schema (or only checks it, without
    /// `migrate`), and watches it from then on.
    ///
    /// # Errors
    /// [`OpenError`], for errors that retrying does not fix.
    pub async fn open(&self, migrate: bool) -> Result<(), OpenError> {
        let mut retry_after = FIRST_OPEN_RETRY;
        while let Err(error) = self.prepare(migrate).await {
            if !matches!(
                error,
                OpenError::Connect(_) | OpenError::NoConnectionLeft { .. }
            ) {
                return Err(error);
            }
            warn!("{error}; retrying in {} ms", retry_after.as_millis());
            sleep(retry_after).await;
            retry_after = (retry_after * 2).min(LAST_OPEN_RETRY);
        }
        self.availability.report_up();
        // Writes and look-ups have their connections first.
        self.tasks.opened.cancel();
        self.start_tasks();
        Ok(())
    }

    /// Starts what goes on for as long as the store is open. Without pings nothing tells
    /// whether the database is there; all else is done again, or by other replicas.
    fn start_tasks(&self) {
        let Tasks {
            tracker,
            supervisor,
            ..
        } = &self.tasks;
        self.connector.slots().add_wanted(TASK_CONNECTIONS);
        let all = || {
            let availability = self.availability.clone();
            (self.connector.clone(), availability, self.stop.clone())
        };
        let (connector, availability, stop) = all();
        let pings = availability.watch(connector, self.clock.clone(), stop);
        supervisor.essential(tracker, "pings", pings);

        let (upkeep, (_, availability, stop)) = (self.upkeep.clone(), all());
        supervisor.restarted(tracker, "the upkeep of the tables", move || {
            upkeep.clone().keep(availability.clone(), stop.clone())
        });
        let (connector, availability, stop) = all();
        supervisor.restarted(tracker, "erasure", move || {
            erasure::keep(connector.clone(), availability.clone(), stop.clone())
        });
        let (notifications, (connector, _, stop)) = (self.notifications.clone(), all());
        supervisor.restarted(tracker, "notifications from other replicas", move || {
            let notifications = notifications.clone();
            notifications.listen(connector.clone(), stop.clone())
        });
        let (notifications, (connector, _, stop)) = (self.notifications.clone(), all());
        supervisor.restarted(tracker, "notifications to other replicas", move || {
            let notifications = notifications.clone();
            notifications.notify(connector.clone(), stop.clone())
        });
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
        // Those that wait for the database see that the store is gone.
        self.tasks.opened.cancel();
        self.tasks.tracker.close();
        self.tasks.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        runtime::Handle,
        time::{Instant, interval},
    };

    use super::*;
    use crate::{
        domain::Uuid,
        store::{
            Action, Limits, PLANNED_ONCE_FROM, ReadError, ReadLimits, Retention, Store, Write,
            WriteError,
        },
    };

    /// A store whose database is nowhere, with all its tasks.
    fn store(supervisor: &Supervisor) -> (Store, StoreTasks) {
        let limits = Limits {
            write_queue: 1,
            reads: ReadLimits {
                lookup_queue: 1,
                list_connections: 1,
                statistics_connections: 1,
                planned_once_from: PLANNED_ONCE_FROM,
            },
            retention: Retention {
                keep: Duration::from_secs(3600),
                partition_len: 1000,
            },
        };
        let connector = Connector::new("host=/nowhere user=nobody").expect("valid");
        let (store, _, tasks) = Store::new(connector, limits, &[Handle::current()], supervisor);
        tasks.start_tasks();
        (store, tasks)
    }

    #[tokio::test]
    async fn without_pings_the_process_ends() {
        let supervisor = Supervisor::default();
        let _store = store(&supervisor);
        for (task, handle) in supervisor.tasks() {
            if task == "pings" {
                handle.abort();
            }
        }
        assert_eq!(supervisor.ended().await.task, "pings");
    }

    #[tokio::test]
    async fn a_queue_that_nobody_empties_any_more_is_not_a_full_one() {
        let supervisor = Supervisor::default();
        let (store, _tasks) = store(&supervisor);
        store.availability.report_up();
        for (_, handle) in supervisor.tasks() {
            handle.abort();
        }
        supervisor.ended().await;
        let write = Write {
            action: Action::ConfirmTime,
            request: None,
            principal: None,
            narrowing: None,
        };
        assert_eq!(store.write(write).await.err(), Some(WriteError::Stopping));
        let (uid, deadline) = (Uuid::new_v4(), Instant::now() + Duration::from_secs(60));
        let read = store.get(vec![uid], None, 0, deadline).await;
        assert_eq!(read, Err(ReadError::Stopping));
        let purged = store.is_purged(uid, deadline).await;
        assert_eq!(purged, Err(ReadError::Stopping));
    }

    #[tokio::test]
    async fn tasks_that_may_be_missing_for_a_while_are_started_again() {
        let restarted = [
            "erasure",
            "notifications from other replicas",
            "notifications to other replicas",
            "the upkeep of the tables",
        ];
        let supervisor = Supervisor::default();
        let _store = store(&supervisor);
        let started = |task| {
            let tasks = supervisor.tasks().into_iter();
            tasks.filter(|(name, _)| *name == task).count()
        };
        let mut looks = interval(Duration::from_millis(5));
        while !restarted.iter().all(|task| started(*task) == 1) {
            looks.tick().await;
        }
        for (task, handle) in supervisor.tasks() {
            if restarted.contains(&task) {
                handle.abort();
            }
        }
        while !restarted.iter().all(|task| started(*task) == 2) {
            looks.tick().await;
        }
        supervisor.stopping().cancel();
    }
}
