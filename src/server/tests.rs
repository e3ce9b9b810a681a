//! What the end of each task comes to, without a database.

use std::{collections::BTreeSet, num::NonZeroUsize, time::Duration};

use tokio::{net::TcpListener, time::interval};

use super::*;
use crate::store;

/// Those that there are before the database is; the others are in `store::tasks`.
const TASKS: [&str; 6] = [
    "accepting connections",
    "commits",
    "health checks",
    "look-ups",
    "the feed",
    "unread responses",
];

fn settings() -> Settings {
    Settings {
        api: ApiLimits {
            max_request_bytes: 1024,
            max_concurrent_requests: 1,
            max_watches: 1,
            max_transfers: 1,
            principal: crate::auth::Limits::default(),
            compress_responses: false,
        },
        store: StoreLimits {
            write_queue: 1,
            reads: ReadLimits {
                lookup_queue: 1,
                list_connections: 1,
                statistics_connections: 1,
                planned_once_from: store::PLANNED_ONCE_FROM,
            },
            retention: Retention {
                keep: Duration::from_secs(3600),
                partition_len: 1000,
            },
        },
        feed: FeedLimits {
            memory_bytes: 1024,
            max_snapshots: 1,
        },
        workers: NonZeroUsize::MIN,
        connections: ConnectionLimits {
            max: 1,
            handshake_timeout: Duration::from_secs(1),
            max_age: None,
            grace: Duration::from_secs(1),
        },
        migrate: false,
        drain_timeout: Duration::from_secs(10),
    }
}

/// Waits until all tasks have been started.
async fn all_started(supervisor: &Supervisor) {
    let mut looks = interval(Duration::from_millis(1));
    loop {
        looks.tick().await;
        let started = supervisor.tasks();
        let started: BTreeSet<&str> = started.iter().map(|(task, _)| *task).collect();
        if started.is_superset(&BTreeSet::from(TASKS)) {
            assert_eq!(started, BTreeSet::from(TASKS));
            return;
        }
    }
}

#[tokio::test]
async fn a_server_ends_in_order_when_one_of_its_tasks_does() {
    for task in TASKS {
        let supervisor = Supervisor::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it is free");
        let connector = Connector::new("host=/nowhere user=nobody").expect("valid");
        let (shutdown, ready) = (CancellationToken::new(), |_| {});
        let run = run_under(
            &supervisor,
            listener,
            connector,
            (settings(), Security::default()),
            shutdown,
            ready,
        );
        let kill = async {
            all_started(&supervisor).await;
            let tasks = supervisor.tasks();
            let found = tasks.iter().find(|(name, _)| *name == task);
            found.expect("it runs").1.abort();
        };
        let (ended, ()) = tokio::join!(run, kill);
        let error = ended.expect_err("it was not told to stop").to_string();
        assert_eq!(error, format!("the task for {task} was aborted"));
    }
}
