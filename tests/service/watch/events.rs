//! What a change means to a filter, and what an event carries: the same live, from
//! memory, from the log, and in the history.

use prost_types::FieldMask;
use uuid::Uuid;
use voicecall::proto::{
    UpdateVoiceCallRequest, VoiceCall, VoiceCallChangeKind, VoiceCallEventType as Type,
    VoiceCallFilter, watch_voice_calls_request::Start,
};

use super::{history, of_staff, staff};
use crate::support::{
    Client, Server, create, delete, handle, reference, request_id, undelete,
    watcher::{Watcher, change, from, live, outline},
};

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
    response.into_inner().voice_call.expect("always set")
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
    let updated = updated.into_inner().voice_call.expect("always set");
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
