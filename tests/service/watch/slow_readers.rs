//! Watchers that read slowly miss nothing, and those that fall behind what the log
//! retains are ended with a reason.

use std::time::Duration;

use tokio::task::JoinSet;
use tonic::Code;
use voicecall::proto::{
    self, ListVoiceCallChangesRequest, VoiceCall, VoiceCallEventType as Type,
    list_voice_call_changes_request, watch_voice_calls_request::Start,
    watch_voice_calls_response::Message,
};

use super::{create_many, of_staff, staff};
use crate::support::{
    Client, Server, assert_refused, create, delete, get, handle, inbound, metadata,
    server::settings,
    undelete, update,
    watcher::{Watcher, change, from, live, outline, snapshot},
    writes::batch_of,
};

#[tokio::test]
async fn a_watcher_that_stops_reading_gets_everything_when_it_reads_again() {
    let mut settings = settings();
    // The feed's memory holds next to nothing, so the changes must come from the log.
    settings.feed.memory_bytes = 16 * 1024;
    let server = Server::start_with(settings).await;
    let mut client = server.client();
    let mut slow = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    let mut slow_ada = Watcher::with_filter(&mut client, live(), of_staff("ada")).await;
    let (mut revision, rounds, calls) = (0, 30, 100);
    for _ in 0..rounds {
        let request = proto::BatchCreateVoiceCallsRequest {
            voice_calls: vec![
                VoiceCall {
                    call_summary: Some("x".repeat(2000)),
                    ..staff("ada")
                };
                calls
            ],
            ..Default::default()
        };
        let created = client
            .batch_create_voice_calls(request)
            .await
            .expect("good");
        revision = created
            .into_inner()
            .voice_calls
            .last()
            .expect("some")
            .revision;
    }
    let expected: Vec<_> = (1..=revision)
        .map(|revision| (Type::Entered, revision))
        .collect();
    assert_eq!(outline(&slow.until(revision).await), expected);
    assert_eq!(outline(&slow_ada.until(revision).await), expected);
}

#[tokio::test]
async fn changes_past_their_retention_are_dropped_and_a_late_client_is_refused() {
    let mut settings = settings();
    settings.store.retention.keep = std::time::Duration::ZERO;
    settings.store.retention.partition_len = 2000;
    let server = Server::start_with(settings).await;
    let mut client = server.client();
    let mut live = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    let (mut total, mut seen) = (0, 0);
    let status = loop {
        let request = proto::BatchCreateVoiceCallsRequest {
            voice_calls: vec![inbound(); 500],
            ..Default::default()
        };
        client
            .batch_create_voice_calls(request)
            .await
            .expect("writers are not blocked");
        total += 500;
        seen += live.until(total).await.len();
        let start = Start::AfterRevision(1);
        match Watcher::start(&mut client, from(start)).await {
            Ok(_) if total < 100_000 => {}
            Ok(_) => panic!("nothing is dropped"),
            Err(status) => break status,
        }
    };
    let oldest: i64 = metadata(&status)["oldest_revision"]
        .parse()
        .expect("a number");
    assert!(oldest >= 1000, "{oldest}");
    assert_refused(
        Err::<(), _>(status),
        Code::OutOfRange,
        "REVISION_COMPACTED",
        &[],
    );
    let start = Start::AfterRevision(oldest);
    let mut late = Watcher::start(&mut client, from(start))
        .await
        .expect("still there");
    assert_eq!(late.until(total).await.len() as i64, total - oldest);
    assert_eq!(seen as i64, total, "a watcher that keeps up loses nothing");
    let uid = get_any(&mut client).await;
    assert_eq!(get(&mut client, &uid).await.expect("calls stay").uid, uid);
}

async fn get_any(client: &mut Client) -> String {
    let request = proto::ListVoiceCallsRequest {
        order_by: "created_at".into(),
        page_size: 1,
        ..Default::default()
    };
    let page = client
        .list_voice_calls(request)
        .await
        .expect("allowed")
        .into_inner();
    page.voice_calls
        .into_iter()
        .next()
        .expect("there are calls")
        .uid
}

#[tokio::test]
async fn a_watcher_too_slow_for_the_log_is_ended_with_a_reason() {
    let mut settings = settings();
    settings.feed.memory_bytes = 16 * 1024;
    settings.store.retention.keep = Duration::ZERO;
    settings.store.retention.partition_len = 2000;
    let server = Server::start_with(settings).await;
    let mut client = server.client();
    let start = |start| (server.client(), start);
    let mut slow = Vec::new();
    // Each on a connection of its own, with calls enough that a snapshot does not
    // fit into the flow-control window.
    for _ in 0..2 {
        create_many(&mut client, 500, 2000).await;
    }
    for (mut client, start) in [start(live()), start(snapshot())] {
        let mut watcher = Watcher::start(&mut client, from(start))
            .await
            .expect("starts");
        watcher.next().await.expect("it goes on");
        slow.push(watcher);
    }
    let token = slow[0].token.clone();
    let (total, status) = loop {
        let total = create_many(&mut client, 500, 2000).await;
        assert!(total < 100_000, "nothing is dropped");
        let resume = from(Start::ResumeToken(token.clone()));
        if let Err(status) = Watcher::start(&mut client, resume).await {
            break (total, status);
        }
    };
    let oldest: i64 = metadata(&status)["oldest_revision"].parse().expect("set");
    assert!(oldest > 1000 && oldest < total, "{oldest} of {total}");
    let refused = Err::<(), _>(status);
    assert_refused(refused, Code::OutOfRange, "REVISION_COMPACTED", &[]);
    let request = ListVoiceCallChangesRequest {
        start: Some(list_voice_call_changes_request::Start::ResumeToken(token)),
        ..Default::default()
    };
    let refused = client.list_voice_call_changes(request).await;
    assert_refused(refused, Code::OutOfRange, "REVISION_COMPACTED", &[]);
    for mut watcher in slow {
        let refused = Err::<(), _>(watcher.end().await);
        assert_refused(refused, Code::ResourceExhausted, "WATCHER_TOO_SLOW", &[]);
    }
}

/// Changes the calls in every way except a purge.
async fn change_all(client: &Client, calls: impl Iterator<Item = &VoiceCall>, round: usize) {
    const AT_ONCE: usize = 64;
    let mut under_way = JoinSet::new();
    for (place, call) in calls.enumerate() {
        let (mut client, uid) = (client.clone(), call.uid.clone());
        under_way.spawn(async move {
            // Some are refused by now.
            match (place + round) % 8 {
                0 => drop(delete(&mut client, &uid).await),
                1 => drop(handle(&mut client, &uid, "eve").await),
                2 => drop(undelete(&mut client, &uid).await),
                3 => drop(create(&mut client, inbound()).await),
                _ => {
                    let call = VoiceCall {
                        uid,
                        duration: i32::try_from(round).ok(),
                        ..Default::default()
                    };
                    drop(update(&mut client, call, &["duration"]).await);
                }
            }
        });
        if under_way.len() >= AT_ONCE {
            under_way.join_next().await;
        }
    }
    under_way.join_all().await;
}

#[tokio::test]
async fn a_snapshot_that_is_read_slowly_shows_one_moment_despite_concurrent_changes() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut expected = Vec::new();
    // More than fits into the flow-control window, so that the server waits for us.
    for _ in 0..4 {
        let call = VoiceCall {
            call_summary: Some("x".repeat(1000)),
            ..inbound()
        };
        let created = batch_of(vec![call; 500]).send(&mut client).await;
        expected.extend(created.expect("good"));
    }
    let deleted = expected.remove(700);
    delete(&mut client, &deleted.uid).await.expect("there");
    expected.sort_by_key(|call| (micros(call), call.uid.clone()));
    let mut watcher = Watcher::start(&mut server.client(), from(snapshot()))
        .await
        .expect("it starts");
    let Ok(Message::SnapshotChunk(mut first)) = watcher.next().await else {
        panic!("no chunk");
    };
    let mut seen = std::mem::take(&mut first.voice_calls);
    let mut chunks = 1;
    let mut undone = 0;
    let revision = loop {
        // First all of them, then some of every part of the table: of what was read
        // and of what comes.
        let apart = if chunks == 1 { 1 } else { 20 };
        let some = expected.iter().skip(chunks - 1).step_by(apart);
        change_all(&client, some, chunks).await;
        match watcher.next().await.expect("it goes on") {
            Message::SnapshotChunk(chunk) => {
                for call in &chunk.voice_calls {
                    let now = get(&mut client, &call.uid).await.expect("it is there");
                    undone += usize::from(now != *call);
                }
                seen.extend(chunk.voice_calls);
                chunks += 1;
            }
            Message::SnapshotComplete(complete) => break complete.revision,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(revision, 2001);
    assert!(seen == expected, "not the calls of revision 2001");
    assert!(
        chunks > 4 && undone > 100,
        "{chunks} chunks with {undone} put back prove nothing"
    );
    // And everything after it comes, once.
    let last = create(&mut client, inbound()).await.revision;
    let events = watcher.until(last).await;
    let revisions: Vec<_> = events.iter().map(|event| change(event).revision).collect();
    let missing = (2002..=last).find(|revision| !revisions.contains(revision));
    assert_eq!((missing, revisions.len()), (None, revisions.len()));
}

fn micros(call: &VoiceCall) -> i64 {
    crate::support::micros(call.created_at)
}
