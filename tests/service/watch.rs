//! WatchVoiceCalls and ListVoiceCallChanges: what a change means to a filter,
//! starts, checkpoints, resuming, purges.

use prost_types::FieldMask;
use tonic::Code;
use uuid::Uuid;
use voicecall::proto::{
    self, ListVoiceCallChangesRequest, PurgeVoiceCallRequest, UpdateVoiceCallRequest, VoiceCall,
    VoiceCallChangeKind, VoiceCallEvent, VoiceCallEventType as Type, VoiceCallFilter,
    VoiceCallStatus, list_voice_call_changes_request, watch_voice_calls_request::Start,
    watch_voice_calls_response::Message,
};

use crate::support::{
    Client, Server, assert_refused, create, delete, eventually, get, handle, inbound, metadata,
    postgres::connect,
    reference, request_id, undelete,
    watcher::{Watcher, change, from, live, outline, snapshot},
};

fn staff(name: &str) -> VoiceCall {
    VoiceCall {
        staff_uid: Some(name.into()),
        ..inbound()
    }
}

fn of_staff(name: &str) -> VoiceCallFilter {
    VoiceCallFilter {
        staff_uids: vec![name.into()],
        ..Default::default()
    }
}

async fn set_staff(client: &mut Client, uid: &str, name: &str) -> VoiceCall {
    let request = UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: uid.into(),
            staff_uid: Some(name.into()),
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["staff_uid".into()],
        }),
        ..Default::default()
    };
    let response = client.update_voice_call(request).await.expect("allowed");
    response.into_inner().voice_call.expect("answered")
}

async fn purge(client: &mut Client, uid: &str) -> i64 {
    let request = PurgeVoiceCallRequest {
        uid: uid.into(),
        request_id: request_id(),
    };
    let response = client.purge_voice_call(request).await.expect("it is there");
    response.into_inner().revision
}

/// All changes after `start` that the filter lets through, by pages of `page_size`.
async fn history(
    client: &mut Client,
    filter: VoiceCallFilter,
    page_size: i32,
) -> Vec<VoiceCallEvent> {
    let mut all = Vec::new();
    let mut start = None;
    loop {
        let request = ListVoiceCallChangesRequest {
            filter: Some(filter.clone()),
            start,
            page_size,
            ..Default::default()
        };
        let page = client
            .list_voice_call_changes(request)
            .await
            .expect("allowed");
        let page = page.into_inner();
        assert!(page.events.len() <= usize::try_from(page_size).expect("positive"));
        all.extend(page.events);
        if page.caught_up {
            return all;
        }
        start = Some(list_voice_call_changes_request::Start::ResumeToken(
            page.resume_token,
        ));
    }
}

/// Plays one life of several calls, one of which has this uid.
async fn play(client: &mut Client, uid: &str) {
    let call = VoiceCall {
        uid: uid.into(),
        ..staff("ada")
    };
    let call = create(client, call).await; // 1
    let other = create(client, staff("bob")).await; // 2
    set_staff(client, &other.uid, "ada").await; // 3
    handle(client, &call.uid, "eve").await.expect("allowed"); // 4
    set_staff(client, &call.uid, "bob").await; // 5
    delete(client, &call.uid).await.expect("there"); // 6
    delete(client, &other.uid).await.expect("there"); // 7
    undelete(client, &other.uid).await.expect("there"); // 8
}

/// The events of the play that each filter must show.
fn expected(uid: &str) -> Vec<(VoiceCallFilter, Vec<(Type, i64)>)> {
    let everything = VoiceCallFilter::default();
    let deleted_too = VoiceCallFilter {
        show_deleted: true,
        ..Default::default()
    };
    let one_call = VoiceCallFilter {
        uids: vec![uid.to_owned()],
        ..Default::default()
    };
    let handled = VoiceCallFilter {
        handled: Some(true),
        ..Default::default()
    };
    use Type::{Deleted, Entered, Exited, Updated};
    vec![
        (
            everything,
            vec![
                (Entered, 1),
                (Entered, 2),
                (Updated, 3),
                (Updated, 4),
                (Updated, 5),
                (Deleted, 6),
                (Deleted, 7),
                (Entered, 8),
            ],
        ),
        (
            deleted_too,
            vec![
                (Entered, 1),
                (Entered, 2),
                (Updated, 3),
                (Updated, 4),
                (Updated, 5),
                (Updated, 6),
                (Updated, 7),
                (Updated, 8),
            ],
        ),
        (
            of_staff("ada"),
            vec![
                (Entered, 1),
                (Entered, 3),
                (Updated, 4),
                (Exited, 5),
                (Deleted, 7),
                (Entered, 8),
            ],
        ),
        (
            of_staff("bob"),
            vec![(Entered, 2), (Exited, 3), (Entered, 5), (Deleted, 6)],
        ),
        (
            one_call,
            vec![(Entered, 1), (Updated, 4), (Updated, 5), (Deleted, 6)],
        ),
        (handled, vec![(Entered, 4), (Updated, 5), (Deleted, 6)]),
        (of_staff("nobody"), vec![]),
    ]
}

#[tokio::test]
async fn live_catch_up_memory_and_history_show_the_same_events() {
    let warm = Server::start().await;
    // Its memory has room for nothing: what it did not send at once is in the log.
    let mut settings = crate::support::server::settings();
    settings.feed.memory_bytes = 1;
    let forgetful = Server::start_on(&warm.database_url, settings).await;
    let uid = Uuid::new_v4().to_string();
    let mut live_watchers = Vec::new();
    for (filter, _) in expected(&uid) {
        for server in [&warm, &forgetful] {
            let mut watcher =
                Watcher::with_filter(&mut server.client(), live(), filter.clone()).await;
            watcher.checkpoint().await;
            live_watchers.push(watcher);
        }
    }
    let token = live_watchers[0].token.clone();
    play(&mut warm.client(), &uid).await;
    // A third has none of it in memory.
    let cold = Server::start_on(&warm.database_url, crate::support::server::settings()).await;
    let mut live_watchers = live_watchers.into_iter();
    for (place, (filter, outlined)) in expected(&uid).into_iter().enumerate() {
        let mut seen = Vec::new();
        for mut watcher in live_watchers.by_ref().take(2) {
            seen.push(("live", watcher.until(8).await));
        }
        for server in [&warm, &forgetful, &cold] {
            let mut client = server.client();
            for (name, start) in [
                ("catch-up", Start::AfterRevision(0)),
                ("resumed", Start::ResumeToken(token.clone())),
            ] {
                let mut watcher = Watcher::with_filter(&mut client, start, filter.clone()).await;
                seen.push((name, watcher.until(8).await));
            }
            for page_size in [1, 3, 1000] {
                let events = history(&mut client, filter.clone(), page_size).await;
                seen.push(("history", events));
            }
        }
        let live = seen[0].1.clone();
        assert_eq!(outline(&live), outlined, "{place}");
        for (way, (name, events)) in seen.into_iter().enumerate() {
            assert_eq!(events, live, "{place}: {name}, the way {way}");
        }
    }
}

#[tokio::test]
async fn events_carry_the_change_whole() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut request = from(live());
    request.include_previous = true;
    let mut watcher = Watcher::start(&mut client, request)
        .await
        .expect("it starts");
    let created = create(&mut client, reference()).await;
    let request_id = request_id();
    let update = UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: created.uid.clone(),
            call_summary: Some("Corrected".into()),
            duration: Some(7),
            ..Default::default()
        }),
        request_id: request_id.clone(),
        ..Default::default()
    };
    let updated = client.update_voice_call(update).await.expect("allowed");
    let updated = updated.into_inner().voice_call.expect("answered");
    let events = watcher.until(updated.revision).await;
    let [first, second] = events.as_slice() else {
        panic!("{events:?}");
    };
    let (first, second) = (change(first), change(second));
    assert_eq!(first.kind(), VoiceCallChangeKind::Created);
    assert_eq!(
        (first.voice_call.as_ref(), &first.previous),
        (Some(&created), &None)
    );
    assert_eq!(
        (&first.changed_fields, first.request_id.as_str()),
        (&None, "")
    );
    assert_eq!(second.kind(), VoiceCallChangeKind::Updated);
    assert_eq!(second.voice_call.as_ref(), Some(&updated));
    assert_eq!(second.previous.as_ref(), Some(&created));
    assert_eq!(second.changed_at, updated.updated_at);
    assert_eq!(second.request_id, request_id);
    assert!(second.transaction_end);
    let fields = second
        .changed_fields
        .as_ref()
        .expect("there was a state before");
    assert_eq!(fields.paths, ["duration", "call_summary"]);
    let history = history(&mut client, VoiceCallFilter::default(), 10).await;
    let without_previous: Vec<_> = events
        .iter()
        .cloned()
        .map(|mut event| {
            event.change.as_mut().expect("set").previous = None;
            event
        })
        .collect();
    assert_eq!(history, without_previous);
}

#[tokio::test]
async fn a_snapshot_goes_over_into_changes_without_a_seam() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut empty = Watcher::start(&mut client, from(snapshot()))
        .await
        .expect("it starts");
    assert_eq!(empty.snapshot().await, (vec![], 0));
    let mut created = Vec::new();
    for _ in 0..3 {
        created.push(create(&mut client, inbound()).await);
    }
    delete(&mut client, &created.remove(0).uid)
        .await
        .expect("there");
    let mut watcher = Watcher::start(&mut client, from(snapshot()))
        .await
        .expect("it starts");
    let (calls, revision) = watcher.snapshot().await;
    assert_eq!((calls, revision), (created, 4));
    let next = create(&mut client, inbound()).await;
    assert_eq!(
        outline(&watcher.until(5).await),
        [(Type::Entered, next.revision)]
    );
    assert_eq!(empty.until(5).await.len(), 5);
}

#[tokio::test]
async fn a_resumed_watch_goes_on_where_its_token_was_handed_out_with_any_filter() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    create(&mut client, staff("ada")).await;
    watcher.until(1).await;
    let token = watcher.token.clone();
    drop(watcher);
    create(&mut client, staff("ada")).await;
    create(&mut client, staff("bob")).await;
    let replica = Server::start_on(&server.database_url, crate::support::server::settings()).await;
    for server in [&server, &replica] {
        let start = Start::ResumeToken(token.clone());
        let mut client = server.client();
        let mut all = Watcher::start(&mut client, from(start.clone()))
            .await
            .expect("it starts");
        assert_eq!(
            outline(&all.until(3).await),
            [(Type::Entered, 2), (Type::Entered, 3)]
        );
        let mut bob = Watcher::with_filter(&mut client, start, of_staff("bob")).await;
        assert_eq!(outline(&bob.until(3).await), [(Type::Entered, 3)]);
    }
}

#[tokio::test]
async fn live_says_at_once_from_where_and_checkpoints_pass_what_the_filter_leaves_out() {
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
async fn writes_of_another_replica_arrive_in_order_with_ones_own() {
    let server = Server::start().await;
    let replica = Server::start_on(&server.database_url, crate::support::server::settings()).await;
    let (mut here, mut there) = (server.client(), replica.client());
    let mut watcher = Watcher::start(&mut here, from(live()))
        .await
        .expect("it starts");
    for _ in 0..20 {
        create(&mut here, inbound()).await;
        create(&mut there, inbound()).await;
    }
    let expected: Vec<_> = (1..=40).map(|revision| (Type::Entered, revision)).collect();
    assert_eq!(outline(&watcher.until(40).await), expected);
}

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
    // Who has not read these when the call is purged gets them no more.
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

    let replica = Server::start_on(&server.database_url, crate::support::server::settings()).await;
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
async fn what_was_put_together_for_others_says_nothing_of_a_call_purged_since() {
    let mut settings = crate::support::server::settings();
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
    // Told of the purge, and puts nothing together for others: its filter names calls.
    let only = || proto::WatchVoiceCallsRequest {
        filter: Some(VoiceCallFilter {
            uids: vec![call.uid.clone()],
            ..Default::default()
        }),
        ..from(Start::AfterRevision(1))
    };
    let mut told = None;
    eventually("the first has ended", async || {
        told = Watcher::start(&mut client.clone(), only()).await.ok();
        told.is_some()
    })
    .await;
    purge(&mut client, &call.uid).await;
    let mut told = told.expect("it has started");
    assert_eq!(outline(&told.until(2).await), [(Type::Purged, 2)]);
    drop(told);
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
async fn a_repeated_purge_answers_the_same_and_the_requests_before_it_are_gone() {
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

#[tokio::test]
async fn starts_that_cannot_be_are_refused_with_their_reason() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    create(&mut client, inbound()).await;
    watcher.until(1).await;
    let token = watcher.token.clone();
    let elsewhere = Server::start().await;
    let mut other = elsewhere.client();
    create(&mut other, inbound()).await;

    let truncated = Start::ResumeToken(token[1..].into());
    let mut flipped = token.clone().into_bytes();
    flipped[20] = if flipped[20] == b'A' { b'B' } else { b'A' };
    let flipped = Start::ResumeToken(String::from_utf8(flipped).expect("ASCII"));
    let ahead = Start::AfterRevision(99);
    for (start, code, reason, fields) in [
        (
            Some(truncated),
            Code::InvalidArgument,
            "INVALID_RESUME_TOKEN",
            &[][..],
        ),
        (
            Some(flipped),
            Code::InvalidArgument,
            "INVALID_RESUME_TOKEN",
            &[],
        ),
        (Some(ahead), Code::OutOfRange, "REVISION_AHEAD", &[]),
        (
            Some(Start::AfterRevision(-1)),
            Code::InvalidArgument,
            "INVALID_FIELD",
            &["after_revision"],
        ),
        (None, Code::InvalidArgument, "INVALID_FIELD", &["start"]),
    ] {
        let request = proto::WatchVoiceCallsRequest {
            start,
            ..Default::default()
        };
        let refused = client.watch_voice_calls(request).await.map(|_| ());
        assert_refused(refused, code, reason, fields);
    }
    let foreign = Watcher::start(&mut other, from(Start::ResumeToken(token))).await;
    assert_refused(
        foreign.map(|_| ()),
        Code::FailedPrecondition,
        "FEED_RESET",
        &[],
    );
}

#[tokio::test]
async fn a_drained_server_ends_its_watches_with_a_checkpoint_and_another_goes_on() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    create(&mut client, inbound()).await;
    watcher.until(1).await;
    let database_url = server.database_url.clone();
    server.stop().await;
    let status = watcher.end().await;
    assert_refused(Err::<(), _>(status), Code::Unavailable, "DRAINING", &[]);
    let replica = Server::start_on(&database_url, crate::support::server::settings()).await;
    let mut client = replica.client();
    create(&mut client, inbound()).await;
    let start = Start::ResumeToken(watcher.token);
    let mut resumed = Watcher::start(&mut client, from(start))
        .await
        .expect("it starts");
    assert_eq!(outline(&resumed.until(2).await), [(Type::Entered, 2)]);
}

#[tokio::test]
async fn a_watcher_that_stops_reading_gets_everything_when_it_reads_again() {
    let mut settings = crate::support::server::settings();
    // A memory that holds next to nothing, so that it must come from the log.
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
    let mut settings = crate::support::server::settings();
    settings.store.retention.keep = std::time::Duration::ZERO;
    settings.store.retention.partition_len = 2000;
    let server = Server::start_with(settings).await;
    let mut client = server.client();
    let mut live = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    let mut total = 0;
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
        let start = Start::AfterRevision(1);
        match Watcher::start(&mut client, from(start)).await {
            Ok(_) if total < 100_000 => {}
            Ok(_) => panic!("nothing goes"),
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
    assert_eq!(
        live.until(total).await.len() as i64,
        total,
        "who keeps up loses nothing"
    );
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
async fn a_database_set_back_and_overtaken_resets_streams_and_tokens() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    for _ in 0..3 {
        create(&mut client, inbound()).await;
    }
    watcher.until(3).await;
    let token = watcher.token.clone();
    // What a failover does that loses the last two commits.
    let database = connect(&server.database_url).await;
    database
        .batch_execute(
            "BEGIN; SELECT pg_advisory_xact_lock(8642101, 1); \
             DELETE FROM voice_calls WHERE revision > 1; \
             DELETE FROM voice_call_changes WHERE revision > 1; \
             DELETE FROM voice_call_batches WHERE last_revision > 1; COMMIT",
        )
        .await
        .expect("allowed");
    for _ in 0..5 {
        create(&mut client, inbound()).await;
    }
    let status = watcher.end().await;
    assert_refused(
        Err::<(), _>(status),
        Code::FailedPrecondition,
        "FEED_RESET",
        &[],
    );
    let resumed = Watcher::start(&mut client, from(Start::ResumeToken(token))).await;
    assert_refused(
        resumed.map(|_| ()),
        Code::FailedPrecondition,
        "FEED_RESET",
        &[],
    );
    let mut anew = Watcher::start(&mut client, from(snapshot()))
        .await
        .expect("it starts");
    let (calls, revision) = anew.snapshot().await;
    assert_eq!((calls.len(), revision), (6, 6));
    let closed = VoiceCallStatus::Missed;
    assert!(calls.iter().all(|call| call.status() != closed));
    create(&mut client, inbound()).await;
    assert!(matches!(
        anew.next().await.expect("it goes on"),
        Message::EventBatch(_) | Message::Checkpoint(_)
    ));
}
