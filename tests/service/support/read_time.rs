//! Checks the guarantee of a checkpoint's `read_time`: no change with an earlier `changed_at`
//! comes after it.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};

use tokio::task::JoinHandle;
use voicecall::proto::{
    WatchVoiceCallsRequest, watch_voice_calls_request::Start, watch_voice_calls_response::Message,
};

use super::{
    eventually, micros,
    server::client,
    watcher::{Watcher, change, from},
};

/// The times that streams have reported, and where they broke the guarantee.
#[derive(Debug, Default)]
pub(crate) struct Promise {
    /// The latest `read_time`, in microseconds; none at first.
    read_time: Option<i64>,
    events: usize,
    /// By how many microseconds a time was wrong, and the revision.
    broken: Vec<(i64, i64)>,
}

impl Promise {
    /// Records a message.
    pub(crate) fn note(&mut self, message: &Message) {
        match message {
            Message::Checkpoint(checkpoint) => {
                if checkpoint.read_time.is_some() {
                    let time = Some(micros(checkpoint.read_time));
                    self.read_time = self.read_time.max(time);
                }
            }
            Message::EventBatch(batch) => {
                self.events += batch.events.len();
                for event in &batch.events {
                    let (event, told) = (change(event), self.read_time.unwrap_or(i64::MIN));
                    let early = told.saturating_sub(micros(event.changed_at));
                    if early > 0 {
                        self.broken.push((early, event.revision));
                    }
                }
            }
            Message::SnapshotChunk(_) | Message::SnapshotComplete(_) => {}
        }
    }

    /// Fails if a stream broke the guarantee; returns the number of events.
    #[track_caller]
    pub(crate) fn check(promises: &[Self]) -> usize {
        let events = promises.iter().map(|one| one.events).sum();
        let broken: Vec<_> = promises.iter().flat_map(|one| &one.broken).collect();
        let (early, revision) = broken.iter().max().map_or((0, 0), |worst| **worst);
        assert!(
            broken.is_empty(),
            "{} of {events} events were changed before a read_time that had been told, \
             at worst {early} microseconds before (revision {revision})",
            broken.len()
        );
        events
    }
}

/// A stream of all changes, read by a task of its own.
pub(crate) struct Observer {
    task: JoinHandle<Promise>,
    state: Arc<State>,
}

/// What the test and the task share.
struct State {
    /// The task ends when it has come so far.
    goal: AtomicI64,
    revision: AtomicI64,
    read_time: AtomicI64,
    checkpoints: AtomicUsize,
}

impl Observer {
    /// Watches the server at this endpoint from now on, with ten checkpoints a second.
    pub(crate) async fn start(endpoint: &str, start: Start) -> Self {
        let request = WatchVoiceCallsRequest { ..from(start) };
        let mut client = client(endpoint);
        let mut watcher = Watcher::start(&mut client, request).await.expect("starts");
        let state = Arc::new(State {
            goal: AtomicI64::new(i64::MAX),
            revision: AtomicI64::new(0),
            read_time: AtomicI64::new(i64::MIN),
            checkpoints: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut promise = Promise::default();
            while shared.revision.load(Ordering::Acquire) < shared.goal.load(Ordering::Acquire) {
                let message = watcher.next().await.expect("it goes on");
                promise.note(&message);
                if let Message::Checkpoint(checkpoint) = message {
                    let read_time = promise.read_time.unwrap_or(i64::MIN);
                    shared.read_time.store(read_time, Ordering::Release);
                    shared
                        .revision
                        .store(checkpoint.revision, Ordering::Release);
                    shared.checkpoints.fetch_add(1, Ordering::Release);
                }
            }
            promise
        });
        let observer = Self { task, state };
        observer.sees_checkpoints(1).await;
        observer
    }

    /// Waits for this many more checkpoints.
    pub(crate) async fn sees_checkpoints(&self, count: usize) {
        let checkpoints = &self.state.checkpoints;
        let enough = checkpoints.load(Ordering::Acquire) + count;
        eventually("there are more checkpoints", async || {
            self.expect_running();
            checkpoints.load(Ordering::Acquire) >= enough
        })
        .await;
    }

    /// The latest `read_time`, in microseconds since 1970.
    pub(crate) fn read_time(&self) -> i64 {
        self.state.read_time.load(Ordering::Acquire)
    }

    /// Waits for a `read_time` at least this late: a time that does not advance would always
    /// keep the guarantee.
    pub(crate) async fn comes_to(&self, time: i64) {
        eventually("read_time goes on", async || {
            self.expect_running();
            self.read_time() >= time
        })
        .await;
    }

    /// What it has seen up to this revision.
    pub(crate) async fn until(mut self, revision: i64) -> Promise {
        self.state.goal.store(revision, Ordering::Release);
        eventually("the stream comes so far", async || self.task.is_finished()).await;
        (&mut self.task).await.expect("it saw no error")
    }

    fn expect_running(&self) {
        assert!(!self.task.is_finished(), "the stream has ended");
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
