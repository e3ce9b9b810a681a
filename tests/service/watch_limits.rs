//! What a watching client can do wrong, by mistake or on purpose: starts that
//! cannot be, streams that nobody reads, streams without end, and reading so slowly
//! that the log goes on without it.

use std::{fs, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tonic::Code;
use voicecall::{
    api::tokens::resume_token::ResumeToken,
    proto::{
        self, ListVoiceCallChangesRequest, VoiceCall, VoiceCallEventType, VoiceCallFilter,
        WatchVoiceCallsRequest, list_voice_call_changes_request, watch_voice_calls_request::Start,
        watch_voice_calls_response::Message,
    },
    store::Position,
};

use crate::support::{
    Client, Server, assert_refused, create, delete, eventually, get, handle, inbound, metadata,
    postgres::Cluster,
    request_id, retry_after,
    server::{Process, client, narrow_client, settings},
    undelete, update,
    watcher::{Watcher, change, from, live, outline, snapshot},
    writes::batch_of,
};

fn of_staff(name: &str) -> VoiceCallFilter {
    VoiceCallFilter {
        staff_uids: vec![name.into()],
        ..Default::default()
    }
}

/// Creates so many calls at once, each of about so many bytes; answers the last
/// revision.
async fn create_many(client: &mut Client, count: usize, bytes: usize) -> i64 {
    let call = VoiceCall {
        staff_uid: Some("ada".into()),
        call_summary: Some("x".repeat(bytes)),
        ..inbound()
    };
    let created = batch_of(vec![call; count]).send(client).await;
    created.expect("good").last().expect("some").revision
}

fn every(seconds: i64, nanos: i32) -> WatchVoiceCallsRequest {
    WatchVoiceCallsRequest {
        checkpoint_interval: Some(prost_types::Duration { seconds, nanos }),
        ..from(live())
    }
}

#[tokio::test]
async fn a_checkpoint_interval_that_is_too_short_is_brought_in() {
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
        // Far longer than the watcher waits; more is brought in to half a minute.
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
    // And what takes it out of a view.
    delete(&mut client, &uid).await.expect("it is there");
    an_event_each().await;
}

#[tokio::test]
async fn a_filter_names_at_most_1000_of_a_kind() {
    let server = Server::start().await;
    let mut client = server.client();
    let filter = |count| VoiceCallFilter {
        uids: (0..count).map(|_| request_id()).collect(),
        ..Default::default()
    };
    let watch = |count| WatchVoiceCallsRequest {
        filter: Some(filter(count)),
        ..from(live())
    };
    let changes = |count| ListVoiceCallChangesRequest {
        filter: Some(filter(count)),
        ..Default::default()
    };
    let (code, reason, fields) = (Code::InvalidArgument, "INVALID_FIELD", ["filter.uids"]);
    let refused = Watcher::start(&mut client, watch(1001)).await.map(|_| ());
    assert_refused(refused, code, reason, &fields);
    let refused = client.list_voice_call_changes(changes(1001)).await;
    assert_refused(refused, code, reason, &fields);
    Watcher::start(&mut client, watch(1000))
        .await
        .expect("1000 are fine");
    client
        .list_voice_call_changes(changes(1000))
        .await
        .expect("1000 are fine");
}

#[tokio::test]
async fn a_token_that_says_too_much_is_refused_by_the_watch_and_by_the_list() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    create(&mut client, inbound()).await;
    watcher.until(1).await;
    let genuine = ResumeToken::decode(&watcher.token).expect("the server's own");
    let at = |revision, stamp| {
        let position = Position { revision, stamp };
        ResumeToken {
            position,
            ..genuine
        }
        .encode()
    };
    let stamp = genuine.position.stamp;
    for (token, code, reason) in [
        (at(2, stamp), Code::OutOfRange, "REVISION_AHEAD"),
        (at(i64::MAX, stamp), Code::OutOfRange, "REVISION_AHEAD"),
        (at(1, stamp ^ 1), Code::FailedPrecondition, "FEED_RESET"),
        (at(-1, stamp), Code::InvalidArgument, "INVALID_RESUME_TOKEN"),
        (String::new(), Code::InvalidArgument, "INVALID_RESUME_TOKEN"),
        (
            "=".repeat(10_000),
            Code::InvalidArgument,
            "INVALID_RESUME_TOKEN",
        ),
    ] {
        let start = Start::ResumeToken(token.clone());
        let refused = Watcher::start(&mut client, from(start)).await.map(|_| ());
        assert_refused(refused, code, reason, &[]);
        let start = list_voice_call_changes_request::Start::ResumeToken(token);
        let request = ListVoiceCallChangesRequest {
            start: Some(start),
            ..Default::default()
        };
        let refused = client.list_voice_call_changes(request).await;
        assert_refused(refused, code, reason, &[]);
    }
}

#[tokio::test]
async fn more_watches_than_the_server_takes_are_refused_until_one_ends() {
    let mut settings = settings();
    settings.api.max_watches = 3;
    let server = Server::start_with(settings).await;
    let mut client = server.client();
    let mut open = Vec::new();
    for start in [live(), snapshot(), Start::AfterRevision(0)] {
        let watcher = Watcher::start(&mut client, from(start)).await;
        open.push(watcher.expect("there is a free place"));
    }
    let status = match Watcher::start(&mut client, from(live())).await {
        Ok(_) => panic!("a fourth"),
        Err(status) => status,
    };
    assert!(retry_after(&status).is_some(), "{status:?}");
    let refused = Err::<(), _>(status);
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED", &[]);
    // What is no watch has nothing to do with it.
    create(&mut client, inbound()).await;
    open[1].snapshot().await;
    for watcher in &mut open {
        watcher.until(1).await;
    }
    open.pop();
    let mut again = None;
    eventually("there is a free place again", async || {
        again = Watcher::start(&mut client, from(live())).await.ok();
        again.is_some()
    })
    .await;
    let full = Watcher::start(&mut client, from(live())).await.map(|_| ());
    assert_refused(full, Code::ResourceExhausted, "OVERLOADED", &[]);
}

/// Memory that a server occupies, in KiB.
fn resident_kib(server: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("it is told").parse().expect("a number")
}

#[tokio::test]
async fn watches_that_are_opened_and_left_leave_nothing_behind() {
    const WATCHES: usize = 2000;
    /// What an index that kept them would take is some 200 MiB.
    const MAX_GROWTH_KIB: u64 = 50 * 1024;
    let database_url = Cluster::shared().await.database().await;
    let server = Process::start(&[
        ("DATABASE_URL", &database_url),
        ("VOICECALL_MAX_WATCHES", "16"),
    ]);
    let mut client = server.client();
    let mut occupied = 0;
    for watch in 0..WATCHES {
        let uids = (0..1000).map(|_| request_id()).collect();
        let request = WatchVoiceCallsRequest {
            filter: Some(VoiceCallFilter {
                uids,
                ..Default::default()
            }),
            ..from(live())
        };
        // That the one before was left reaches the server sooner or later.
        eventually(
            "the watches before have ended",
            async || match Watcher::start(&mut client, request.clone()).await {
                Ok(_) => true,
                Err(status) => {
                    let refused = Err::<(), _>(status);
                    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED", &[]);
                    false
                }
            },
        )
        .await;
        if watch == WATCHES / 10 {
            occupied = resident_kib(&server);
        }
    }
    let growth = resident_kib(&server).saturating_sub(occupied);
    assert!(growth < MAX_GROWTH_KIB, "{growth} KiB more");
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("there is a free place");
    let created = create(&mut client, inbound()).await;
    assert_eq!(watcher.until(created.revision).await.len(), 1);
}

#[tokio::test]
async fn watchers_that_never_read_cost_little_and_delay_no_other() {
    const CONNECTIONS: usize = 20;
    const STREAMS: usize = 100;
    /// One message that waits, what HTTP/2 has taken of it, and a page of the log.
    const MAX_KIB_EACH: u64 = 256;
    let database_url = Cluster::shared().await.database().await;
    let server = Process::start(&[("DATABASE_URL", &database_url)]);
    let mut client = server.client();
    let mut reader = Watcher::start(&mut server.client(), from(live()))
        .await
        .expect("it starts");
    let mut staff_reader =
        Watcher::with_filter(&mut server.client(), live(), of_staff("ada")).await;
    let first = create_many(&mut client, 1, 10).await;
    let mut stuck = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = self::client(&server.endpoint);
        for stream in 0..STREAMS {
            let filter = match stream % 2 {
                0 => VoiceCallFilter::default(),
                _ => of_staff("ada"),
            };
            stuck.push(Watcher::with_filter(&mut client, live(), filter).await);
        }
    }
    let before = resident_kib(&server);
    let mut last = first;
    for _ in 0..40 {
        last = create_many(&mut client, 100, 2000).await;
    }
    let expected: Vec<_> = (1..=last).collect();
    for reader in [&mut reader, &mut staff_reader] {
        let seen = reader.until(last).await;
        let seen: Vec<_> = seen.iter().map(|event| change(event).revision).collect();
        assert_eq!(seen, expected);
    }
    let growth = resident_kib(&server).saturating_sub(before);
    let each = growth / (CONNECTIONS * STREAMS) as u64;
    println!("{each} KiB each");
    assert!(each <= MAX_KIB_EACH, "{each} KiB for each stream");
    // The one that begins to read after all has missed nothing. Those beside it
    // on its connection hold what the connection may send.
    let mut late = stuck.swap_remove(1);
    drop(stuck);
    let seen = late.until(last).await;
    let seen: Vec<_> = seen.iter().map(|event| change(event).revision).collect();
    assert_eq!(seen, expected[1..]);
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
    // fit into what is sent ahead.
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
        assert!(total < 100_000, "nothing goes");
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

/// Changes the calls, in all ways that there are but purges.
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
async fn a_snapshot_that_is_read_slowly_shows_one_moment_whatever_changes_meanwhile() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut expected = Vec::new();
    // More than is sent ahead, so that the server waits for us.
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

/// A stream that is stuck, because nobody reads it and far more waits (4 MB) than is
/// sent ahead (2 MB, the client's window): calls of staff ada.
async fn stuck_watcher(server: &Server) -> (Watcher, i64) {
    let mut watcher = Watcher::with_filter(&mut server.client(), live(), of_staff("ada")).await;
    let mut client = server.client();
    let mut last = 0;
    for _ in 0..4 {
        last = create_many(&mut client, 500, 2000).await;
    }
    while !matches!(watcher.next().await, Ok(Message::EventBatch(_))) {}
    (watcher, last)
}

#[tokio::test]
async fn a_purge_reaches_what_waits_for_a_watcher_that_does_not_read() {
    let server = Server::start().await;
    let mut client = server.client();
    let (mut watcher, _) = stuck_watcher(&server).await;
    let secret = VoiceCall {
        staff_uid: Some("ada".into()),
        call_summary: Some("secret".into()),
        ..inbound()
    };
    let secret = create(&mut client, secret).await;
    let request = proto::PurgeVoiceCallRequest {
        uid: secret.uid.clone(),
        ..Default::default()
    };
    let purged = client.purge_voice_call(request).await.expect("there");
    let revision = purged.into_inner().revision;
    let events = watcher.until(revision).await;
    let of_call: Vec<_> = events
        .iter()
        .filter(|event| change(event).uid == secret.uid)
        .cloned()
        .collect();
    let purged = (VoiceCallEventType::Purged, revision);
    assert_eq!(outline(&of_call), [purged], "{of_call:?}");
}

#[tokio::test]
async fn a_purge_reaches_what_was_read_from_the_log_and_waits() {
    let mut settings = settings();
    // Nothing is kept in memory, so the watcher reads a page of the log.
    settings.feed.memory_bytes = 1;
    let server = Server::start_with(settings).await;
    let mut watcher = Watcher::start(&mut narrow_client(&server.endpoint), from(live()))
        .await
        .expect("it starts");
    watcher.checkpoint().await;
    // All in one page, the last far behind what is sent ahead.
    let secret = VoiceCall {
        call_summary: Some("x".repeat(2000)),
        ..inbound()
    };
    let mut client = server.client();
    let created = batch_of(vec![secret; 100]).send(&mut client).await;
    let secret = created.expect("good").pop().expect("some");
    while !matches!(watcher.next().await, Ok(Message::EventBatch(_))) {}
    let request = proto::PurgeVoiceCallRequest {
        uid: secret.uid.clone(),
        ..Default::default()
    };
    let purged = client.purge_voice_call(request).await.expect("there");
    let revision = purged.into_inner().revision;
    // The feed knows of it once another watcher does.
    Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts")
        .until(revision)
        .await;
    let events = watcher.until(revision).await;
    let of_call: Vec<_> = events
        .into_iter()
        .filter(|event| change(event).uid == secret.uid)
        .collect();
    let purged = (VoiceCallEventType::Purged, revision);
    assert_eq!(outline(&of_call), [purged], "{of_call:?}");
}

#[tokio::test]
async fn the_time_of_checkpoints_never_runs_backwards() {
    let server = Server::start().await;
    // Before the first change there is no time to tell.
    create(&mut server.client(), inbound()).await;
    let uid = request_id();
    let one_call = VoiceCallFilter {
        uids: vec![uid.clone()],
        ..Default::default()
    };
    // Both on one connection: while the first is not read, what it is sent uses up
    // what the connection may send, and the second waits.
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
                // Nor does it speak of what has not been delivered.
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
