//! Watchers that are there from the first change on.

use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use voicecall::proto::{
    VoiceCallEvent, VoiceCallFilter, WatchVoiceCallsRequest, watch_voice_calls_request::Start,
    watch_voice_calls_response::Message,
};

use super::{
    PATIENCE, World,
    model::{Log, View},
};
use crate::support::watcher::{Watcher, from};

/// A watcher, and what it has received so far.
pub(super) struct LiveWatcher {
    view: View,
    with_previous: bool,
    /// The revision up to which it has received everything.
    reached: watch::Receiver<i64>,
    end: watch::Sender<bool>,
    /// It ends with the test, so that a failure is not followed by a hundred others.
    events: AbortOnDropHandle<Vec<VoiceCallEvent>>,
}

impl LiveWatcher {
    /// Watches as this caller from the first change on.
    pub(super) async fn start(
        world: &World,
        caller: usize,
        filter: VoiceCallFilter,
        with_previous: bool,
    ) -> Self {
        let caller = &world.callers[caller];
        let request = WatchVoiceCallsRequest {
            filter: Some(filter.clone()),
            include_previous: with_previous,
            ..from(Start::AfterRevision(0))
        };
        let watcher = Watcher::start(&mut world.client(), caller.request(request)).await;
        let mut watcher = watcher.expect("it starts");
        let (tell, reached) = watch::channel(0);
        let (end, is_over) = watch::channel(false);
        let events = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut events = Vec::new();
            while !*is_over.borrow() {
                match watcher.next().await.expect("it goes on") {
                    Message::EventBatch(batch) => events.extend(batch.events),
                    Message::Checkpoint(checkpoint) => {
                        tell.send_replace(checkpoint.revision);
                    }
                    other => panic!("{other:?}"),
                }
            }
            events
        }));
        Self {
            view: View {
                narrowing: caller.narrowing,
                filter,
            },
            with_previous,
            reached,
            end,
            events,
        }
    }

    /// Waits until it has received everything up to this revision.
    pub(super) async fn reach(&mut self, revision: i64) {
        let reached = self.reached.wait_for(|reached| *reached >= revision);
        let reached = timeout(PATIENCE, reached).await.expect("it comes so far");
        reached.expect("it goes on");
    }

    /// All that it has received.
    pub(super) async fn finish(self) -> Vec<VoiceCallEvent> {
        self.end.send_replace(true);
        self.events.await.expect("no panic")
    }

    /// The same, compared with what it must have received.
    pub(super) async fn check(self, log: &Log) {
        let (view, with_previous) = (self.view.clone(), self.with_previous);
        let events = self.finish().await;
        let expected = log.live_events(&view, 0, with_previous);
        if let Some(wrong) = difference(&events, &expected) {
            panic!("watched live, {view:?}: {wrong}");
        }
    }
}

/// The first place at which two lists differ; `None`: they are the same.
pub(super) fn difference<T: PartialEq + std::fmt::Debug>(
    actual: &[T],
    expected: &[T],
) -> Option<String> {
    let len = actual.len().max(expected.len());
    let place = (0..len).find(|place| actual.get(*place) != expected.get(*place))?;
    Some(format!(
        "number {place} of {} is {:?}, but of {} {:?}",
        actual.len(),
        actual.get(place),
        expected.len(),
        expected.get(place)
    ))
}
