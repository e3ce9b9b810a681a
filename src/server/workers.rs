//! The threads that serve connections, each with a runtime of its own.
//!
//! A connection stays on its thread, with its requests, their look-ups and lists, and its
//! watches. On a runtime that all threads share, each step of a request might run on another
//! thread, which would have to wake first.

use std::{io, num::NonZeroUsize, sync::Arc, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Threads of each worker for what would hold it up, such as looking up the names of hosts.
const MAX_BLOCKING_THREADS: usize = 4;

/// The worker threads. Clones share them. The threads end when [`Workers::stop`] is called, or
/// when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Workers {
    workers: Arc<[Worker]>,
    /// Tracks the running threads.
    running: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: Arc<DropGuard>,
}

struct Worker {
    runtime: Handle,
    /// The connections that this worker serves.
    connections: TaskTracker,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The system has no more threads or file descriptors.
    pub(super) fn start(count: NonZeroUsize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let stop_on_drop = Arc::new(stop.clone().drop_guard());
        let running = TaskTracker::new();
        let workers = (0..count.get()).map(|number| {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(MAX_BLOCKING_THREADS)
                .build()?;
            let worker = Worker {
                runtime: runtime.handle().clone(),
                connections: TaskTracker::new(),
            };
            let (stop, token) = (stop.clone(), running.token());
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    runtime.block_on(stop.cancelled());
                    // Drops the connections that outlasted the drain timeout.
                    drop(runtime);
                    drop(token);
                })?;
            Ok(worker)
        });
        Ok(Self {
            workers: workers.collect::<io::Result<_>>()?,
            running,
            stop,
            _stop_on_drop: stop_on_drop,
        })
    }

    /// The runtimes of the threads.
    pub(super) fn handles(&self) -> Vec<Handle> {
        let workers = self.workers.iter();
        workers.map(|worker| worker.runtime.clone()).collect()
    }

    /// Serves a connection on the thread that has the fewest.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let workers = self.workers.iter();
        if let Some(worker) = workers.min_by_key(|worker| worker.connections.len()) {
            worker.connections.spawn_on(connection, &worker.runtime);
        }
    }

    /// Ends the threads, and everything that still runs on them.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn connections_are_spread_over_the_threads_and_end_with_them() {
        let workers = Workers::start(NonZeroUsize::new(2).expect("not zero")).expect("threads");
        let (names_sender, mut names_receiver) = mpsc::channel(4);
        let mut ends = Vec::new();
        for _ in 0..4 {
            let names_sender = names_sender.clone();
            let (end, ended) = oneshot::channel::<()>();
            ends.push(end);
            workers.spawn(async move {
                let name = thread::current().name().map(str::to_owned);
                names_sender.send(name).await.expect("the test receives it");
                // Never sent: the connection ends with its thread.
                let _ = ended.await;
            });
        }
        let mut names = Vec::new();
        for _ in 0..4 {
            names.extend(names_receiver.recv().await.flatten());
        }
        names.sort();
        assert_eq!(names, ["worker-0", "worker-0", "worker-1", "worker-1"]);
        workers.stop().await;
        for end in ends {
            assert!(end.is_closed(), "a connection outlives the threads");
        }
    }
}
