//! A purge reaches the watchers that may have seen the call, and erases it from whatever
//! a stream has not yet sent.

use tonic::Code;
use uuid::Uuid;
use voicecall::proto::{
    self, PurgeVoiceCallRequest, VoiceCall, VoiceCallEventType as Type, VoiceCallFilter,
    watch_voice_calls_request::Start, watch_voice_calls_response::Message,
};

use super::{create_many, history, of_staff, purge, staff};
use crate::support::{
    Server, assert_refused, create, eventually, get, handle, inbound,
    postgres::connect,
    reference, request_id,
    server::{narrow_client, settings},
    watcher::{Watcher, change, from, live, outline},
    writes::batch_of,
};

#[tokio::test]
async fn a_purge_erases_the_call_everywhere_and_watchers_see_it() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut all = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    let mut bob = Watcher::with_filter(&mut client, live(), of_staff("bob")).await;
    let other_uid = VoiceCallFilter {
        uids: vec![Uuid::new_v4().to_string()],
        ..Default::default()
    };
    let mut other = Watcher::with_filter(&mut client, live(), other_uid).await;
    let secret = "+15550001234";
    let call = create(
        &mut client,
        VoiceCall {
            from_number: Some(secret.into()),
            call_summary: Some(secret.into()),
            ..staff("ada")
        },
    )
    .await;
    handle(&mut client, &call.uid, "eve")
        .await
        .expect("allowed");
    // Read now, because after the purge these events are no longer sent.
    assert_eq!(all.until(2).await.len(), 2);
    let revision = purge(&mut client, &call.uid).await;
    assert_eq!(revision, 3);
    let purged = [(Type::Purged, 3)];
    let seen = all.until(3).await;
    assert_eq!(outline(&seen), purged);
    let last = change(&seen[0]);
    assert_eq!(
        (last.uid.as_str(), &last.voice_call),
        (call.uid.as_str(), &None)
    );
    assert_eq!(outline(&bob.until(3).await), purged);
    assert_eq!(other.until(3).await, []);

    let replica = Server::start_on(&server.database_url, settings()).await;
    for server in [&server, &replica] {
        let mut client = server.client();
        let start = Start::AfterRevision(0);
        let mut late = Watcher::start(&mut client, from(start))
            .await
            .expect("it starts");
        assert_eq!(
            outline(&late.until(3).await),
            purged,
            "earlier changes are blank"
        );
        let history = history(&mut client, VoiceCallFilter::default(), 10).await;
        assert_eq!(outline(&history), purged);
        let found = get(&mut client, &call.uid).await;
        assert_refused(found, Code::NotFound, "CALL_PURGED", &[]);
    }
    let again = client.create_voice_call(proto::CreateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: call.uid.clone(),
            ..inbound()
        }),
        ..Default::default()
    });
    assert_refused(again.await, Code::AlreadyExists, "CALL_PURGED", &[]);
    let database = connect(&server.database_url).await;
    for table in ["voice_calls", "voice_call_changes", "idempotency_records"] {
        let sql = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%{secret}%'");
        let left: i64 = database.query_one(&sql, &[]).await.expect(table).get(0);
        assert_eq!(left, 0, "{table}");
    }
}

#[tokio::test]
async fn a_shared_batch_omits_a_call_purged_since() {
    let mut settings = settings();
    settings.api.max_watches = 1;
    let server = Server::start_with(settings).await;
    let mut client = server.client();
    let everything = || from(Start::AfterRevision(0));
    let mut first = Watcher::start(&mut client, everything())
        .await
        .expect("it starts");
    let call = create(&mut client, staff("ada")).await;
    assert_eq!(outline(&first.until(1).await), [(Type::Entered, 1)]);
    drop(first);
    // It is sent the purge, and uses no shared batch: its filter names calls.
    let only = || proto::WatchVoiceCallsRequest {
        filter: Some(VoiceCallFilter {
            uids: vec![call.uid.clone()],
            ..Default::default()
        }),
        ..from(Start::AfterRevision(1))
    };
    let mut notified = None;
    eventually("the first has ended", async || {
        notified = Watcher::start(&mut client.clone(), only()).await.ok();
        notified.is_some()
    })
    .await;
    purge(&mut client, &call.uid).await;
    let mut notified = notified.expect("it has started");
    assert_eq!(outline(&notified.until(2).await), [(Type::Purged, 2)]);
    drop(notified);
    let mut late = None;
    eventually("the second has ended", async || {
        late = Watcher::start(&mut client.clone(), everything()).await.ok();
        late.is_some()
    })
    .await;
    let seen = late.expect("it has started").until(2).await;
    assert_eq!(outline(&seen), [(Type::Purged, 2)]);
}

#[tokio::test]
async fn a_repeated_purge_returns_the_same_response_and_earlier_requests_are_gone() {
    let server = Server::start().await;
    let mut client = server.client();
    let create_request = proto::CreateVoiceCallRequest {
        voice_call: Some(reference()),
        request_id: request_id(),
        ..Default::default()
    };
    client
        .create_voice_call(create_request.clone())
        .await
        .expect("new");
    let request = PurgeVoiceCallRequest {
        uid: reference().uid,
        request_id: request_id(),
    };
    let first = client
        .purge_voice_call(request.clone())
        .await
        .expect("there");
    let second = client
        .purge_voice_call(request.clone())
        .await
        .expect("repeated");
    assert_eq!(first.into_inner(), second.into_inner());
    let replay = client.create_voice_call(create_request).await;
    assert_refused(replay, Code::NotFound, "CALL_PURGED", &[]);
    let anew = PurgeVoiceCallRequest {
        request_id: String::new(),
        ..request
    };
    assert_refused(
        client.purge_voice_call(anew).await,
        Code::NotFound,
        "CALL_PURGED",
        &[],
    );
}

/// A stream of the calls of staff ada that is blocked: it is not read, and far more is
/// queued (4 MB) than the client's flow-control window (2 MB) lets the server send.
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
    let purged = (Type::Purged, revision);
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
    // Once another watcher has the purge, the feed has applied it.
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
    let purged = (Type::Purged, revision);
    assert_eq!(outline(&of_call), [purged], "{of_call:?}");
}
