//! A reader that needs a change that has left the log gets an error with a reason, and
//! never an answer that ends well without it.

use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};
use voicecall::proto::{
    ExportVoiceCallsRequest, ExportVoiceCallsResponse, ListVoiceCallChangesRequest,
    ListVoiceCallChangesResponse, PurgeVoiceCallRequest, VoiceCall, VoiceCallFilter,
    WatchVoiceCallsResponse, list_voice_call_changes_request::Start,
    watch_voice_calls_response::Message,
};

use super::{FIRST_PARTITION, fill, nothing_kept, write_until_gone};
use crate::support::{
    Client, Server, create, eventually, facts, inbound, micros,
    postgres::{connect, contents, running},
    reference, request_id,
    server::narrow_client,
    update,
    watcher::{Watcher, change, from, live, snapshot},
    writes::{Write, batch_of, create_of, delete_of, handle_of, undelete_of, update_of},
};

/// Asserts that this says that the reader came too late for the log.
#[track_caller]
fn assert_too_late(status: &Status, what: &str) {
    let (code, reason, _) = facts(status);
    let expected = [
        (Code::OutOfRange, "REVISION_COMPACTED"),
        (Code::ResourceExhausted, "WATCHER_TOO_SLOW"),
    ];
    assert!(
        expected.contains(&(code, reason.as_str())),
        "{what}: {status:?}"
    );
}

/// All calls at one revision, in chunks.
enum Chunks {
    Export(Streaming<ExportVoiceCallsResponse>),
    Snapshot(Streaming<WatchVoiceCallsResponse>),
}

impl Chunks {
    async fn export(client: &mut Client) -> Self {
        let request = ExportVoiceCallsRequest::default();
        let stream = client.export_voice_calls(request).await;
        Self::Export(stream.expect("it begins").into_inner())
    }

    async fn snapshot(client: &mut Client) -> Self {
        let stream = client.watch_voice_calls(from(snapshot())).await;
        Self::Snapshot(stream.expect("it begins").into_inner())
    }

    /// The next calls; `None` after the last.
    async fn next(&mut self) -> Result<Option<Vec<VoiceCall>>, Status> {
        match self {
            Self::Export(stream) => Ok(stream.message().await?.map(|chunk| chunk.voice_calls)),
            Self::Snapshot(stream) => {
                let response = stream.message().await?.expect("it has no end");
                match response.message.expect("always set") {
                    Message::SnapshotChunk(chunk) => Ok(Some(chunk.voice_calls)),
                    Message::SnapshotComplete(_) => Ok(None),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

/// So many calls that their chunks do not fit into what is sent ahead, one created after
/// the other, in that order.
async fn large_calls(client: &mut Client) -> Vec<VoiceCall> {
    let now = micros(create(client, inbound()).await.created_at) / 1_000_000;
    let mut calls = Vec::new();
    for hundred in 0..6 {
        let call = |n| VoiceCall {
            created_at: Some(prost_types::Timestamp {
                seconds: now - 100_000 + hundred * 100 + n,
                nanos: 0,
            }),
            call_summary: Some("x".repeat(8000)),
            staff_uid: Some("ada".into()),
            ..inbound()
        };
        let created = batch_of((0..100).map(call).collect()).send(client).await;
        calls.extend(created.expect("good"));
    }
    calls
}

/// Opens a stream that nobody reads on, changes the last call, waits until that change
/// has left the log, and reads the rest.
async fn read_too_late(open: impl AsyncFn(&mut Client) -> Chunks, what: &str) {
    let server = Server::start_with(nothing_kept(1000)).await;
    let database = connect(&server.database_url).await;
    let mut client = server.client();
    let calls = large_calls(&mut client).await;
    let mut chunks = open(&mut narrow_client(&server.endpoint)).await;
    let mut seen = chunks.next().await.expect("it goes on").expect("a chunk");
    assert!(seen.len() < calls.len() / 2, "all of it in one chunk");
    let changed = VoiceCall {
        duration: Some(5),
        ..calls.last().expect("some").clone()
    };
    let changed = update(&mut client, changed, &["duration"]).await;
    let revision = changed.expect("it is there").revision;
    assert!(revision <= FIRST_PARTITION);
    write_until_gone(&mut client, &database, revision).await;
    loop {
        match chunks.next().await {
            Ok(Some(calls)) => seen.extend(calls),
            Ok(None) => break,
            Err(status) => return assert_too_late(&status, what),
        }
    }
    seen.retain(|call| call.staff_uid.is_some());
    let count = seen.len();
    assert!(seen == calls, "{what} ends well with {count} of 600 calls");
}

#[tokio::test]
async fn a_slow_export_does_not_end_well_without_a_call_whose_change_has_left_the_log() {
    read_too_late(Chunks::export, "the export").await;
}

#[tokio::test]
async fn a_slow_snapshot_does_not_end_well_without_a_call_whose_change_has_left_the_log() {
    read_too_late(Chunks::snapshot, "the snapshot").await;
}

/// The history of one call, from its beginning.
async fn history(mut client: Client, uid: String) -> Result<ListVoiceCallChangesResponse, Status> {
    let request = ListVoiceCallChangesRequest {
        filter: Some(VoiceCallFilter {
            uids: vec![uid],
            ..Default::default()
        }),
        start: Some(Start::AfterRevision(0)),
        ..Default::default()
    };
    let response = client.list_voice_call_changes(request).await?;
    Ok(response.into_inner())
}

#[tokio::test]
async fn a_history_that_is_read_late_is_whole_or_an_error() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut expected = Vec::new();
    let call = create(&mut client, inbound()).await;
    expected.push(call.revision);
    let mut change_it = async |duration| {
        let changed = VoiceCall {
            duration: Some(duration),
            ..call.clone()
        };
        let changed = update(&mut server.client(), changed, &["duration"]).await;
        expected.push(changed.expect("it is there").revision);
    };
    for duration in 0..3 {
        change_it(duration).await;
    }
    assert!(fill(&mut client, 1000).await > FIRST_PARTITION);
    change_it(9).await;
    // All that is known of the log is in memory, and nothing else reads it now.
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    watcher.until(expected[4]).await;
    let before = history(client.clone(), call.uid.clone()).await;
    assert_eq!(before.expect("it is all there").events.len(), 5);

    // What retention does, in one transaction, while the history waits for it: its
    // query sees the log after the drop.
    let retention = connect(&server.database_url).await;
    let query = "SELECT tableoid::regclass::text FROM voice_call_changes WHERE revision = 1";
    let row = retention.query_one(query, &[]).await.expect("it is there");
    let partition: String = row.get(0);
    let lock = "BEGIN; LOCK TABLE voice_call_changes IN ACCESS EXCLUSIVE MODE";
    retention.batch_execute(lock).await.expect("it is free");
    let late = tokio::spawn(history(client.clone(), call.uid.clone()));
    let late = AbortOnDropHandle::new(late);
    let look = connect(&server.database_url).await;
    eventually("the history waits", async || {
        running(&look, "voicecall log", true).await > 0
    })
    .await;
    let drop_it = format!(
        "UPDATE feed SET oldest_revision = {floor}; \
         ALTER TABLE voice_call_changes DETACH PARTITION {partition}; \
         DROP TABLE {partition}; COMMIT",
        floor = FIRST_PARTITION + 1
    );
    retention.batch_execute(&drop_it).await.expect("it goes");
    match late.await.expect("no panic") {
        Err(status) => assert_too_late(&status, "the history"),
        Ok(page) => {
            let revisions = page.events.iter().map(|event| change(event).revision);
            let revisions: Vec<_> = revisions.collect();
            let caught_up = page.caught_up;
            assert_eq!(revisions, expected, "caught_up: {caught_up}");
        }
    }
}

/// Writes with a request id, each of which fits the state that the ones before it leave.
/// The last of them changes nothing.
fn life_of_a_call() -> Vec<Write> {
    let uid = reference().uid;
    let longer = VoiceCall {
        uid: uid.clone(),
        duration: Some(500),
        ..VoiceCall::default()
    };
    let unhandled = VoiceCall {
        handled_by_staff_uid: None,
        handled_at: None,
        ..reference()
    };
    vec![
        create_of(unhandled),
        create_of(inbound()),
        handle_of(&uid, "ann"),
        delete_of(&uid, false),
        undelete_of(&uid),
        update_of(longer.clone()),
        update_of(longer),
    ]
}

#[tokio::test]
async fn a_repeat_whose_changes_have_left_the_log_is_answered_right_or_not_at_all() {
    // The second partition stays.
    let server = Server::start_with(nothing_kept(100_000)).await;
    let database = connect(&server.database_url).await;
    let mut client = server.client();
    let mut writes = Vec::new();
    for write in life_of_a_call() {
        let answer = write.clone().send(&mut client).await;
        writes.push((write, answer.expect("it fits the state")));
    }
    // What changed nothing was answered with a state that is not the present one.
    let later = VoiceCall {
        duration: Some(501),
        ..reference()
    };
    update(&mut client, later, &["duration"])
        .await
        .expect("it is there");
    // Half of this batch is in the partition that goes.
    let head = contents(&database).await.head;
    fill(
        &mut client,
        usize::try_from(FIRST_PARTITION - 50 - head).expect("room"),
    )
    .await;
    let write = batch_of(vec![inbound(); 100]);
    let answer = write.clone().send(&mut client).await.expect("good");
    let [first, last] = [answer[0].revision, answer[99].revision];
    assert!(
        first <= FIRST_PARTITION && last > FIRST_PARTITION,
        "{first}"
    );
    writes.push((write, answer));
    write_until_gone(&mut client, &database, first).await;

    let before = contents(&database).await;
    let mut wrong = Vec::new();
    for (write, expected) in writes {
        let kind = write.kind();
        match write.send(&mut client).await {
            Ok(answer) if answer == expected => {}
            Ok(answer) => wrong.push(format!(
                "{kind}: OK with {} calls of {}: {:?}",
                answer.len(),
                expected.len(),
                answer.first(),
            )),
            Err(status) => {
                let (code, reason, _) = facts(&status);
                if (code, reason.as_str()) != (Code::OutOfRange, "REVISION_COMPACTED") {
                    wrong.push(format!("{kind}: {status:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // And none of them was done again.
    let after = contents(&database).await;
    assert_eq!((after.head, after.calls), (before.head, before.calls));
}

#[tokio::test]
async fn a_repeated_purge_is_answered_the_same_after_its_change_has_left_the_log() {
    let server = Server::start_with(nothing_kept(100_000)).await;
    let database = connect(&server.database_url).await;
    let mut client = server.client();
    let call = create(&mut client, inbound()).await;
    let purge = PurgeVoiceCallRequest {
        uid: call.uid,
        request_id: request_id(),
    };
    let first = client.purge_voice_call(purge.clone()).await;
    let first = first.expect("it is there").into_inner();
    fill(&mut client, FIRST_PARTITION as usize).await;
    write_until_gone(&mut client, &database, first.revision).await;
    let again = client.purge_voice_call(purge).await;
    assert_eq!(again.expect("the same").into_inner(), first);
}
