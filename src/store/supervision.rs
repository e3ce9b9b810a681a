//! Tasks that live as long as the process, of the store, the feed and the server. Each is started
//! under the rule that says what its end means, whether it panics or returns before the process
//! stops:
//!
//! - an essential one (such as commits, look-ups, pings, the feed, health, accepting) ends the
//!   process, because the work that it had begun is lost: what supervises the process starts it
//!   again (`server::run` waits for [`Supervisor::ended`], drains, and returns an error);
//! - one that others do without for a while (upkeep, erasure, notifications) is restarted.
//!
//! Tasks that belong to a request or to a connection end with those, and are none of these.

use std::{any::Any, fmt, time::Duration};

use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinError, JoinHandle},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

/// The pause before a task is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub struct Supervisor {
    stopping: CancellationToken,
    ended: watch::Sender<Option<TaskEnded>>,
    #[cfg(test)]
    tasks: std::sync::Arc<std::sync::Mutex<Vec<(&'static str, tokio::task::AbortHandle)>>>,
}

/// A task that has ended before the process stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the task for {task} {how}")]
pub struct TaskEnded {
    /// What the task is for.
    pub task: &'static str,
    how: How,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    Returned,
    Aborted,
    Panicked(String),
}

impl fmt::Display for How {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => formatter.write_str("has ended"),
            Self::Aborted => formatter.write_str("was aborted"),
            Self::Panicked(message) => write!(formatter, "panicked: {message}"),
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new(CancellationToken::new())
    }
}

impl Supervisor {
    /// A supervisor of tasks that may end once `stopping` is cancelled.
    #[must_use]
    pub fn new(stopping: CancellationToken) -> Self {
        Self {
            stopping,
            ended: watch::Sender::new(None),
            #[cfg(test)]
            tasks: std::sync::Arc::default(),
        }
    }

    /// The token whose cancellation says that tasks may end.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Starts a task whose end ends the process. `tracker` owns it.
    pub fn essential(
        &self,
        tracker: &TaskTracker,
        task: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        self.essential_on(&Handle::current(), tracker, task, future);
    }

    /// The same on another thread.
    pub fn essential_on(
        &self,
        thread: &Handle,
        tracker: &TaskTracker,
        task: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let handle = tracker.spawn_on(future, thread);
        self.register(task, &handle);
        let this = self.clone();
        tracker.spawn(async move {
            if let Some(ended) = this.wait(task, handle).await {
                error!("{ended}; stopping the process");
                this.ended.send_if_modified(|first| {
                    let is_first = first.is_none();
                    first.get_or_insert(ended);
                    is_first
                });
            }
        });
    }

    /// Starts a task that is started again when it ends. `tracker` owns it.
    pub fn restarted<F>(
        &self,
        tracker: &TaskTracker,
        task: &'static str,
        start: impl Fn() -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        let owner = tracker.clone();
        tracker.spawn(async move {
            loop {
                let handle = owner.spawn(start());
                this.register(task, &handle);
                let Some(ended) = this.wait(task, handle).await else {
                    return;
                };
                let after = RESTART_AFTER.as_secs();
                error!("{ended}; restarting it in {after} s");
                tokio::select! {
                    () = sleep(RESTART_AFTER) => {}
                    () = this.stopping.cancelled() => return,
                }
            }
        });
    }

    /// Waits for the first essential task that ends before the process stops.
    pub async fn ended(&self) -> TaskEnded {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await;
        // The sender is ours.
        match ended.ok().and_then(|ended| ended.clone()) {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Waits for the end of a task; `None`: the process stops.
    async fn wait(&self, task: &'static str, handle: JoinHandle<()>) -> Option<TaskEnded> {
        let how = match handle.await {
            Ok(()) => How::Returned,
            Err(error) => how(error),
        };
        let ended = TaskEnded { task, how };
        (!self.stopping.is_cancelled()).then_some(ended)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests take note of the task")]
    fn register(&self, _: &'static str, _: &JoinHandle<()>) {}

    #[cfg(test)]
    fn register(&self, task: &'static str, handle: &JoinHandle<()>) {
        let mut tasks = self.tasks.lock().expect("no panic here");
        tasks.push((task, handle.abort_handle()));
    }

    /// All tasks that were started, with what ends them.
    #[cfg(test)]
    pub(crate) fn tasks(&self) -> Vec<(&'static str, tokio::task::AbortHandle)> {
        self.tasks.lock().expect("no panic here").clone()
    }
}

fn how(error: JoinError) -> How {
    match error.try_into_panic() {
        Ok(panic) => How::Panicked(message(&*panic)),
        Err(_) => How::Aborted,
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn an_essential_task_that_panics_or_returns_ends_the_process() {
        let (supervisor, tracker) = (Supervisor::default(), TaskTracker::new());
        supervisor.essential(&tracker, "nothing", std::future::pending());
        supervisor.essential(&tracker, "sums", async { panic!("2 + 2 is {}", 5) });
        let ended = supervisor.ended().await.to_string();
        assert_eq!(ended, "the task for sums panicked: 2 + 2 is 5");

        let supervisor = Supervisor::default();
        supervisor.essential(&tracker, "nothing", async {});
        let ended = supervisor.ended().await.to_string();
        assert_eq!(ended, "the task for nothing has ended");
    }

    #[tokio::test]
    async fn a_task_that_may_be_missing_is_started_again() {
        let (supervisor, tracker) = (Supervisor::default(), TaskTracker::new());
        let (started, mut starts) = mpsc::channel(8);
        supervisor.restarted(&tracker, "hints", move || {
            let started = started.clone();
            async move {
                started.send(()).await.expect("the test listens");
                panic!("again");
            }
        });
        for _ in 0..2 {
            starts.recv().await.expect("it starts");
        }
        supervisor.stopping.cancel();
        tracker.close();
        tracker.wait().await;
        assert!(supervisor.ended.borrow().is_none());
    }

    #[tokio::test]
    async fn tasks_end_with_the_process() {
        let (supervisor, tracker) = (Supervisor::default(), TaskTracker::new());
        let stopping = supervisor.stopping.clone();
        supervisor.essential(
            &tracker,
            "nothing",
            async move { stopping.cancelled().await },
        );
        supervisor.stopping.cancel();
        tracker.close();
        tracker.wait().await;
        assert!(supervisor.ended.borrow().is_none());
    }
}
