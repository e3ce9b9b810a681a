//! The watch that resumes by itself, in the library and on the command line.

use std::{pin::pin, process::Stdio};

use futures_util::{Stream, TryStreamExt};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use voicecall::{
    client::{Client, Error, Watched},
    proto::{
        CreateVoiceCallRequest, ErrorReason, Live, PurgeVoiceCallRequest, Snapshot,
        VoiceCallEventType, WatchVoiceCallsRequest, watch_voice_calls_request::Start,
    },
};

use crate::{
    program::{command, run},
    support::{inbound, server::Restartable},
};

async fn create(client: &Client) -> String {
    let request = CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        ..Default::default()
    };
    client.create(request).await.expect("it is created").uid
}

fn from(start: Start) -> WatchVoiceCallsRequest {
    WatchVoiceCallsRequest {
        start: Some(start),
        ..Default::default()
    }
}

/// The revision of the next event; calls of snapshots and positions are passed.
async fn next_event(watch: &mut (impl Stream<Item = Result<Watched, Error>> + Unpin)) -> i64 {
    loop {
        let watched = watch
            .try_next()
            .await
            .expect("it goes on")
            .expect("it never ends");
        if let Watched::Event(event) = watched {
            return event.change.expect("always set").revision;
        }
    }
}

#[tokio::test]
async fn a_watch_outlives_the_service_and_gives_each_change_once() {
    let mut service = Restartable::start().await;
    let client = service.client();
    let mut live = pin!(client.watch(from(Start::Live(Live {}))));
    // The first checkpoint: from here on it watches.
    live.try_next()
        .await
        .expect("it starts")
        .expect("it never ends");
    let mut whole = pin!(client.watch(from(Start::Snapshot(Snapshot {}))));
    let first = whole.try_next().await.expect("it starts");
    assert!(matches!(first, Some(Watched::Complete { revision: 0, .. })));
    let mut revision = 0;
    for _ in 0..3 {
        for _ in 0..3 {
            create(&client).await;
            revision += 1;
            assert_eq!(next_event(&mut live).await, revision);
        }
        service.kill();
        service.run();
        create(&client).await;
        revision += 1;
        assert_eq!(next_event(&mut live).await, revision);
    }
    for expected in 1..=revision {
        assert_eq!(next_event(&mut whole).await, expected);
    }
}

#[tokio::test]
async fn what_cannot_be_resumed_ends_a_watch_with_its_reason() {
    let service = Restartable::start().await;
    let client = service.client();
    create(&client).await;
    for (start, reason) in [
        (Start::AfterRevision(9), ErrorReason::RevisionAhead),
        (
            Start::ResumeToken("corrupt".into()),
            ErrorReason::InvalidResumeToken,
        ),
    ] {
        let mut watch = pin!(client.watch(from(start)));
        let error = watch.try_next().await.expect_err("it cannot be");
        assert_eq!(error.reason(), Some(reason));
        assert_eq!(watch.try_next().await.expect("no second error"), None);
    }
}

#[tokio::test]
async fn the_command_watches_through_a_restart_and_can_be_resumed() {
    let mut service = Restartable::start().await;
    let client = service.client();
    let uid = create(&client).await;
    let watching = command(&service.endpoint(), &["watch", "--json", "--after", "0"])
        .stdout(Stdio::piped())
        .spawn();
    let mut watching = watching.expect("the program is built");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    let mut token = String::new();
    let mut next = async || loop {
        let line = lines.next_line().await.expect("text").expect("it goes on");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        if line["type"] == "POSITION" {
            line["resume_token"]
                .as_str()
                .expect("text")
                .clone_into(&mut token);
        } else {
            return line;
        }
    };
    let first = next().await;
    assert_eq!(
        (&first["type"], &first["revision"]),
        (&"ENTERED".into(), &1.into())
    );
    assert_eq!(first["voice_call"]["uid"], *uid);
    assert_eq!(first["voice_call"]["status"], "incoming call");
    service.kill();
    service.run();
    create(&client).await;
    assert_eq!(next().await["revision"], 2);
    let purge = PurgeVoiceCallRequest {
        uid: uid.clone(),
        ..Default::default()
    };
    client.purge(purge).await.expect("it is there");
    let last = next().await;
    assert_eq!(
        (&last["type"], &last["revision"]),
        (&"PURGED".into(), &3.into())
    );
    watching.kill().await.expect("it runs");

    let resumed = command(&service.endpoint(), &["watch", "--resume", &token])
        .stdout(Stdio::piped())
        .spawn();
    let mut resumed = resumed.expect("the program is built");
    let mut lines = BufReader::new(resumed.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("text").expect("it goes on");
    assert!(line.contains("PURGED") && line.contains(&uid), "{line}");

    let history = run(&service.endpoint(), &["history", &uid, "--json"])
        .await
        .json();
    let types: Vec<_> = history.iter().map(|line| &line["type"]).collect();
    assert_eq!(
        types,
        [VoiceCallEventType::Purged
            .as_str_name()
            .rsplit('_')
            .next()
            .expect("a word")]
    );
}

#[tokio::test]
async fn a_purge_needs_to_be_confirmed() {
    let service = Restartable::start().await;
    let uid = create(&service.client()).await;
    let refused = run(&service.endpoint(), &["purge", &uid]).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    assert_eq!(
        run(&service.endpoint(), &["purge", &uid, "--yes"])
            .await
            .ok(),
        ""
    );
    let gone = run(&service.endpoint(), &["get", &uid]).await;
    assert_eq!(gone.code, Some(3), "{}", gone.stderr);
}
