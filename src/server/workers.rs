//! The threads that serve connections, each with a scheduler of its own.
//!
//! A connection stays on its thread, with its requests, the look-ups and lists that
//! answer them, and its watches. On a scheduler that all threads share, each step of a
//! request may be another thread's, which has to wake first.

use std::{io, num::NonZeroUsize, sync::Arc, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// The threads. Clones share them; they end when all are gone, or are told to.
#[derive(Clone)]
pub(super) struct Workers {
    workers: Arc<[Worker]>,
    /// Counts the threads.
    running: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: Arc<DropGuard>,
}

struct Worker {
    runtime: Handle,
    /// The connections that it serves.
    connections: TaskTracker,
}

impl Workers {
    /// Starts so many threads.
    ///
    /// # Errors
    /// The system has no more threads or descriptors.
    pub(super) fn start(count: NonZeroUsize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let stop_on_drop = Arc::new(stop.clone().drop_guard());
        let running = TaskTracker::new();
        let workers = (0..count.get()).map(|number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let worker = Worker {
                runtime: runtime.handle().clone(),
                connections: TaskTracker::new(),
            };
            let (stop, token) = (stop.clone(), running.token());
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    runtime.block_on(stop.cancelled());
                    // With what the drain timeout left under way.
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

    /// The schedulers.
    pub(super) fn handles(&self) -> Vec<Handle> {
        let workers = self.workers.iter();
        workers.map(|worker| worker.runtime.clone()).collect()
    }

    /// Has the thread with the fewest connections serve another.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let workers = self.workers.iter();
        if let Some(worker) = workers.min_by_key(|worker| worker.connections.len()) {
            worker.connections.spawn_on(connection, &worker.runtime);
        }
    }

    /// Ends the threads, with whatever still runs on them.
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
    async fn each_thread_gets_its_share_and_none_outlives_the_end() {
        let workers = Workers::start(NonZeroUsize::new(2).expect("not zero")).expect("threads");
        let (tell, mut told) = mpsc::channel(4);
        let mut ends = Vec::new();
        for _ in 0..4 {
            let tell = tell.clone();
            let (end, ended) = oneshot::channel::<()>();
            ends.push(end);
            workers.spawn(async move {
                let name = thread::current().name().map(str::to_owned);
                tell.send(name).await.expect("it is waited for");
                // Never told: it ends with its thread.
                let _ = ended.await;
            });
        }
        let mut names = Vec::new();
        for _ in 0..4 {
            names.extend(told.recv().await.flatten());
        }
        names.sort();
        assert_eq!(names, ["worker-0", "worker-0", "worker-1", "worker-1"]);
        workers.stop().await;
        for end in ends {
            assert!(end.is_closed(), "a connection outlives the threads");
        }
    }
}
