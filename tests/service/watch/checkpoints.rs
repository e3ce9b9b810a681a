//! Checkpoints: how often they come, that events do not wait for them, and that neither
//! their time nor their revision says more than is true.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;
use voicecall::proto::{
    self, VoiceCall, VoiceCallFilter, WatchVoiceCallsRequest, watch_voice_calls_response::Message,
};

use super::{create_many, of_staff, staff};
use crate::support::{
    Server, assert_refused, create, delete, inbound, request_id,
    watcher::{Watcher, from, live},
};

fn every(seconds: i64, nanos: i32) -> WatchVoiceCallsRequest {
    WatchVoiceCallsRequest {
        checkpoint_interval: Some(prost_types::Duration { seconds, nanos }),
        ..from(live())
    }
}

#[tokio::test]
async fn a_live_watch_starts_with_a_checkpoint_and_checkpoints_pass_what_the_filter_leaves_out() {
    let server = Server::start().await;
    let mut client = server.client();
    create(&mut client, staff("ada")).await;
    let mut watcher = Watcher::with_filter(&mut client, live(), of_staff("nobody")).await;
    let (first, events) = watcher.checkpoint().await;
    assert_eq!(
        (first.revision, first.head_revision, events.len()),
        (1, 1, 0)
    );
    create(&mut client, staff("ada")).await;
    assert_eq!(watcher.until(2).await, []);
    let (later, _) = watcher.checkpoint().await;
    let (later_still, _) = watcher.checkpoint().await;
    let time = |checkpoint: &proto::Checkpoint| {
        let time = checkpoint.read_time.expect("always set");
        (time.seconds, time.nanos)
    };
    assert!(time(&first) <= time(&later) && time(&later) <= time(&later_still));
}

#[tokio::test]
async fn a_checkpoint_interval_that_is_too_short_is_raised_to_the_minimum() {
    let server = Server::start().await;
    let mut client = server.client();
    for (seconds, nanos) in [(0, 0), (0, 1), (-5, 0), (i64::MIN, 0)] {
        let mut watcher = Watcher::start(&mut client, every(seconds, nanos))
            .await
            .expect("it starts");
        watcher.checkpoint().await;
        let started = Instant::now();
        for _ in 0..3 {
            watcher.checkpoint().await;
        }
        // The second may follow the first at once, none of the others.
        assert!(started.elapsed() >= Duration::from_millis(150));
    }
    let request = every(1, 1_000_000_000);
    let refused = Watcher::start(&mut client, request).await.map(|_| ());
    let fields = ["checkpoint_interval"];
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", &fields);
}

#[tokio::test]
async fn events_do_not_wait_for_a_checkpoint() {
    let server = Server::start().await;
    let mut client = server.client();
    let uid = request_id();
    let one_call = VoiceCallFilter {
        uids: vec![uid.clone()],
        ..Default::default()
    };
    let one_client = VoiceCallFilter {
        client_uids: vec!["acme".into()],
        ..Default::default()
    };
    let mut watchers = Vec::new();
    for filter in [
        VoiceCallFilter::default(),
        one_call,
        of_staff("ada"),
        one_client,
    ] {
        // Capped at half a minute, which is longer than the watcher waits.
        let request = WatchVoiceCallsRequest {
            filter: Some(filter),
            ..every(i64::MAX, 0)
        };
        let mut watcher = Watcher::start(&mut client, request).await.expect("starts");
        let first = watcher.next().await.expect("it goes on");
        assert!(matches!(first, Message::Checkpoint(_)), "{first:?}");
        watchers.push(watcher);
    }
    let call = VoiceCall {
        uid: uid.clone(),
        staff_uid: Some("ada".into()),
        client_uid: Some("acme".into()),
        ..inbound()
    };
    create(&mut client, call).await;
    let mut an_event_each = async || {
        for watcher in &mut watchers {
            let next = watcher.next().await.expect("it goes on");
            assert!(matches!(next, Message::EventBatch(_)), "{next:?}");
        }
    };
    an_event_each().await;
    // So does the change that takes the call out of a view.
    delete(&mut client, &uid).await.expect("it is there");
    an_event_each().await;
}

#[tokio::test]
async fn the_time_of_checkpoints_never_runs_backwards() {
    let server = Server::start().await;
    // Before the first change there is no time to report.
    create(&mut server.client(), inbound()).await;
    let uid = request_id();
    let one_call = VoiceCallFilter {
        uids: vec![uid.clone()],
        ..Default::default()
    };
    // Both on one connection: while the first is not read, its messages use up the
    // connection's flow-control window, and the second waits.
    let mut shared = server.client();
    let mut unread = Watcher::start(&mut shared, from(live()))
        .await
        .expect("starts");
    unread.checkpoint().await;
    let mut watcher = Watcher::with_filter(&mut shared, live(), one_call).await;
    watcher.checkpoint().await;
    let mut other = Watcher::start(&mut server.client(), from(live()))
        .await
        .expect("it starts");
    let mut client = server.client();
    let filled = create_many(&mut client, 500, 2000).await;
    // Long enough for a checkpoint to wait in the second, behind which it gets an
    // event, and for the next checkpoint to be due.
    for call in [None, Some(VoiceCall { uid, ..inbound() })] {
        if let Some(call) = call {
            create(&mut client, call).await;
        }
        for _ in 0..5 {
            other.checkpoint().await;
        }
    }
    drop(unread);
    let (mut last, mut events) = (0, 0);
    loop {
        match watcher.next().await.expect("it goes on") {
            Message::Checkpoint(checkpoint) => {
                let time = crate::support::micros(checkpoint.read_time);
                assert!(time >= last, "{time} after {last}");
                last = time;
                // Nor does its revision cover what has not been delivered.
                assert_eq!(checkpoint.revision > filled, events > 0, "{checkpoint:?}");
                if events > 0 {
                    return;
                }
            }
            Message::EventBatch(batch) => events += batch.events.len(),
            other => panic!("{other:?}"),
        }
    }
}
