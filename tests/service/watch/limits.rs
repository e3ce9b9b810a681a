//! The size of a filter, the number of watches, and the memory of those that are never
//! read or abandoned.

use tonic::Code;
use voicecall::proto::{
    ListVoiceCallChangesRequest, VoiceCallFilter, WatchVoiceCallsRequest,
    watch_voice_calls_request::Start,
};

use super::{create_many, of_staff};
use crate::support::{
    Server, assert_refused, create, eventually, inbound,
    postgres::Cluster,
    request_id, retry_after,
    server::{Process, client, narrow_client, settings},
    watcher::{Watcher, change, from, live, snapshot},
};

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
async fn watches_past_the_limit_are_refused_until_one_ends() {
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
    // Other requests are not limited by it.
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

#[tokio::test]
async fn the_filters_of_all_watches_have_a_bound() {
    /// Each filter has 400 KB on the wire.
    const WATCHES: usize = 400;
    const MAX_KIB: u64 = 400 * 1024;
    let database_url = Cluster::shared().await.database().await;
    let server = Process::start(&[("DATABASE_URL", &database_url)]);
    let before = server.resident_kib();
    let names = || {
        (0..1000)
            .map(|name| format!("{name:064}"))
            .collect::<Vec<_>>()
    };
    let request = WatchVoiceCallsRequest {
        filter: Some(VoiceCallFilter {
            staff_uids: names(),
            client_uids: names(),
            handled_by_staff_uids: names(),
            ..Default::default()
        }),
        ..from(live())
    };
    let (mut open, mut refused) = (Vec::new(), None);
    for watch in 0..2 * WATCHES {
        if watch % 100 == 0 {
            open.push((client(&server.endpoint), Vec::new()));
        }
        let (client, watches) = open.last_mut().expect("just made");
        match Watcher::start(client, request.clone()).await {
            Ok(watch) => watches.push(watch),
            Err(status) => {
                refused = Some(status);
                break;
            }
        }
    }
    let refused: Result<(), _> = Err(refused.expect("there is a bound"));
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED", &[]);
    let growth = server.resident_kib().saturating_sub(before);
    assert!(growth < MAX_KIB, "{growth} KiB");
    // They count for as long as their watches last.
    drop(open);
    let mut client = client(&server.endpoint);
    eventually("there is room again", async || {
        Watcher::start(&mut client, request.clone()).await.is_ok()
    })
    .await;
}

/// Each of them needs six megabytes of the log, which memory no longer has.
#[tokio::test]
async fn watchers_that_catch_up_hold_little_of_the_log() {
    const WATCHES: usize = 60;
    /// A read of 256 KiB and the entry that ends it, a message, and what each costs besides.
    const MAX_KIB_EACH: u64 = 1536;
    let database_url = Cluster::shared().await.database().await;
    let server = Process::start(&[
        ("DATABASE_URL", &database_url),
        ("VOICECALL_FEED_MEMORY", "65536"),
    ]);
    let mut client = server.client();
    let mut last = 0;
    for _ in 0..4 {
        last = create_many(&mut client, 25, 60_000).await;
    }
    let before = server.resident_kib();
    let mut stuck = Vec::new();
    for watch in 0..WATCHES {
        let filter = match watch % 2 {
            0 => VoiceCallFilter::default(),
            _ => of_staff("ada"),
        };
        let start = Start::AfterRevision(0);
        let mut client = narrow_client(&server.endpoint);
        let mut watcher = Watcher::with_filter(&mut client, start, filter).await;
        // It has read the log.
        watcher.next().await.expect("an event");
        stuck.push(watcher);
    }
    let growth = server.resident_kib().saturating_sub(before);
    let each = growth / WATCHES as u64;
    assert!(each < MAX_KIB_EACH, "{each} KiB for each watch");
    for watcher in &mut stuck[..2] {
        let seen = watcher.until(last).await;
        let seen: Vec<_> = seen.iter().map(|event| change(event).revision).collect();
        assert_eq!(seen, (2..=last).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn abandoned_watches_leave_nothing_behind() {
    const WATCHES: usize = 2000;
    /// Subscriptions that were kept would take some 200 MiB.
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
        // The server learns only after a while that the watch before was abandoned.
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
            occupied = server.resident_kib();
        }
    }
    let growth = server.resident_kib().saturating_sub(occupied);
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
    // With few checkpoints: its own HTTP/2 ends a connection on which a hundred small frames
    // wait to be read.
    let request = WatchVoiceCallsRequest {
        filter: Some(of_staff("ada")),
        checkpoint_interval: Some(prost_types::Duration {
            seconds: 5,
            nanos: 0,
        }),
        ..from(live())
    };
    let late = Watcher::start(&mut self::client(&server.endpoint), request).await;
    let mut late = late.expect("it starts");
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
    let before = server.resident_kib();
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
    let growth = server.resident_kib().saturating_sub(before);
    let each = growth / (CONNECTIONS * STREAMS) as u64;
    println!("{each} KiB each");
    assert!(each <= MAX_KIB_EACH, "{each} KiB for each stream");
    // A watcher that begins to read after all has missed nothing.
    let seen = late.until(last).await;
    let seen: Vec<_> = seen.iter().map(|event| change(event).revision).collect();
    assert_eq!(seen, expected[1..]);
}
