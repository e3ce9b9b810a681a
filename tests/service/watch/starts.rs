//! Where a watch starts: with a snapshot, live, or where another ended, and the starts
//! that are refused.

use tonic::Code;
use voicecall::{
    api::tokens::resume_token::ResumeToken,
    proto::{
        self, ListVoiceCallChangesRequest, VoiceCallEventType as Type,
        list_voice_call_changes_request, watch_voice_calls_request::Start,
    },
    store::Position,
};

use super::{of_staff, staff};
use crate::support::{
    Server, assert_refused, create, delete, inbound,
    watcher::{Watcher, from, live, outline, snapshot},
};

#[tokio::test]
async fn changes_follow_a_snapshot_without_a_gap() {
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
async fn a_watch_resumes_where_its_token_was_issued_with_any_filter() {
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
async fn invalid_starts_are_refused_with_their_reason() {
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
async fn an_altered_token_is_refused_by_the_watch_and_by_the_list() {
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
