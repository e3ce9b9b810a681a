//! Streams and writes that go on through many tokens, each of which lives for a moment.

use std::{
    collections::HashSet,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::{TryStreamExt, stream};
use voicecall::{
    client::{Client, Watched},
    proto::{
        CreateVoiceCallRequest, ImportRecord, ImportSettings, WatchVoiceCallsRequest,
        import_voice_calls_response::Result as Answer, watch_voice_calls_request::Start,
    },
};

use super::{client, lines, shell};
use crate::{
    support::{
        dir::Dir,
        inbound,
        server::Process,
        tokens::{AUDIENCE, ISSUER, new_key, serve_with_key},
    },
    transfers::call,
};

/// How many tokens a stream has to outlive, and how long each of them lives: as many as there
/// are in an hour of two seconds each, where VOICECALL_TEST_LONG is set.
fn tokens_to_outlive() -> (usize, &'static str) {
    match std::env::var_os("VOICECALL_TEST_LONG") {
        Some(_) => (1800, "500ms"),
        None => (6, "2s"),
    }
}

/// A service whose tokens live for two seconds, and not a moment longer.
struct ShortLived {
    dir: Dir,
    service: Process,
}

impl ShortLived {
    async fn start() -> Self {
        let (dir, key) = (Dir::new("credentials"), new_key());
        dir.write("key", &key.to_pem());
        let service = serve_with_key(&key, &dir).await;
        Self { dir, service }
    }

    /// A client whose tokens are counted, a line for each, in this file.
    fn client(&self, count: &str) -> Client {
        let program = env!("CARGO_BIN_EXE_voicecall");
        let (count, key) = (self.dir.path(count), self.dir.path("key"));
        let (_, lifetime) = tokens_to_outlive();
        let script = format!(
            "echo x >>{count}; exec {program} auth issue --key-file {key} --sub test \
             --issuer {ISSUER} --audience {AUDIENCE} --scope calls:read --scope calls:write \
             --expires {lifetime}"
        );
        client(&self.service.endpoint, shell(&script))
    }

    /// How many tokens the client with this count has read.
    fn read_tokens(&self, count: &str) -> usize {
        lines(&self.dir.path(count))
    }
}

async fn create(client: &Client) -> i64 {
    let request = CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        ..Default::default()
    };
    client
        .create(request)
        .await
        .expect("it is created")
        .revision
}

#[tokio::test]
async fn a_watch_and_writes_go_on_through_many_tokens() {
    let service = ShortLived::start().await;
    let (watcher, writer) = (
        service.client("watch-tokens"),
        service.client("write-tokens"),
    );
    let last = AtomicUsize::new(usize::MAX);
    let watching = async {
        let mut watch = pin!(watcher.watch(WatchVoiceCallsRequest {
            start: Some(Start::AfterRevision(0)),
            ..Default::default()
        }));
        let mut seen = 0;
        while seen < last.load(Ordering::Relaxed) {
            let watched = watch.try_next().await.expect("it goes on");
            if let Watched::Event(event) = watched.expect("it goes on") {
                seen += 1;
                let revision = event.change.expect("it has one").revision;
                assert_eq!(usize::try_from(revision), Ok(seen));
            }
        }
    };
    let writing = async {
        while service.read_tokens("watch-tokens") < tokens_to_outlive().0 {
            create(&writer).await;
        }
        let revision = usize::try_from(create(&writer).await).expect("small");
        last.store(revision, Ordering::Relaxed);
        // The watcher may have seen it before it knew that it is the last.
        create(&writer).await;
    };
    tokio::join!(watching, writing);
    // The two do not read theirs at the same moments.
    assert!(service.read_tokens("write-tokens") >= tokens_to_outlive().0 * 4 / 5);
}

#[tokio::test]
async fn an_import_goes_on_through_many_tokens() {
    let service = ShortLived::start().await;
    let importer = service.client("tokens");
    let mut sent = 0;
    let records = stream::poll_fn(|_| {
        let more = service.read_tokens("tokens") < tokens_to_outlive().0;
        std::task::Poll::Ready(more.then(|| {
            sent += 1;
            ImportRecord {
                sequence: sent,
                voice_call: Some(call(u128::try_from(sent).expect("positive"))),
            }
        }))
    });
    let mut answered = HashSet::new();
    {
        let mut answers = pin!(importer.import(ImportSettings::default(), records));
        while let Some(answer) = answers.try_next().await.expect("it goes on") {
            assert!(
                matches!(answer.result, Some(Answer::Success(_))),
                "{answer:?}"
            );
            assert!(
                answered.insert(answer.sequence),
                "{} twice",
                answer.sequence
            );
        }
    }
    assert_eq!(answered, (1..=sent).collect());
}
