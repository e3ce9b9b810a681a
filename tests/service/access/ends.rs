//! Credentials end, and with them the streams; and what belongs to a principal.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use voicecall::{
    auth::{Scope, policy},
    proto::{
        CreateVoiceCallRequest, ListVoiceCallChangesRequest, VoiceCall, WatchVoiceCallsResponse,
        watch_voice_calls_response::Message,
    },
};

use super::{hang_up, with_token};
use crate::support::{
    dir::Dir,
    facts, inbound,
    postgres::Cluster,
    request_id,
    server::Process,
    tokens::{new_key, serve_with_key, token},
    watcher::{from, live},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The last message of the stream before the status that ends it.
async fn end_of(stream: &mut Streaming<WatchVoiceCallsResponse>) -> (Option<Message>, Status) {
    let mut last = None;
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(response)) => last = response.message,
                Ok(None) => panic!("streams end with a status"),
                Err(status) => return status,
            }
        }
    };
    let status = timeout(PATIENCE, end).await.expect("it ends");
    (last, status)
}

#[tokio::test]
async fn a_watch_ends_with_a_checkpoint_when_its_token_expires() {
    let dir = Dir::new("expires");
    let key = new_key();
    let server = serve_with_key(&key, &dir).await;
    let lifetime = Duration::from_secs(2);
    let (token, issued_at) = (token(&key, "amy", lifetime), Instant::now());
    let mut client = server.client();
    let request = with_token(from(live()), &token);
    let stream = client.watch_voice_calls(request).await;
    let mut stream = stream.expect("it is good").into_inner();
    let (last, status) = end_of(&mut stream).await;
    let lived = issued_at.elapsed();
    assert!(matches!(last, Some(Message::Checkpoint(_))), "{last:?}");
    assert_eq!(facts(&status).0, Code::Unauthenticated);
    assert_eq!(facts(&status).1, "TOKEN_EXPIRED");
    // Expiries have whole seconds.
    assert!(lived > lifetime - Duration::from_secs(1), "{lived:?}");
    assert!(lived < lifetime + Duration::from_secs(1), "{lived:?}");
    let refused = client.watch_voice_calls(with_token(from(live()), &token));
    let status = refused.await.expect_err("it has expired");
    assert_eq!(facts(&status).1, "TOKEN_EXPIRED");
}

#[tokio::test]
async fn a_watch_ends_with_a_checkpoint_when_its_principal_leaves_the_policy() {
    let dir = Dir::new("revoked");
    let entry = |name| {
        let scopes = Scope::ALL.into_iter().collect();
        let expires_at = std::time::SystemTime::now() + Duration::from_secs(3600);
        policy::new_token(name, scopes, None, expires_at).expect("a good name")
    };
    let ((leaving, leaving_entry), (staying, staying_entry)) = (entry("leaving"), entry("staying"));
    dir.write("policy.toml", &format!("{leaving_entry}{staying_entry}"));
    let url = Cluster::shared().await.database().await;
    let server = Process::start(&[
        ("DATABASE_URL", &url),
        ("VOICECALL_AUTH_POLICY", &dir.path("policy.toml")),
    ]);
    let mut client = server.client();
    let mut start = async |token: &str| {
        let stream = client.watch_voice_calls(with_token(from(live()), token));
        stream.await.expect("it is good").into_inner()
    };
    let (mut leaving_stream, mut staying_stream) = (start(&leaving).await, start(&staying).await);
    dir.write("policy.toml", &staying_entry);
    hang_up(&server);
    let (last, status) = end_of(&mut leaving_stream).await;
    assert!(matches!(last, Some(Message::Checkpoint(_))), "{last:?}");
    assert_eq!(facts(&status).1, "CREDENTIALS_INVALID");
    let status = client
        .watch_voice_calls(with_token(from(live()), &leaving))
        .await
        .expect_err("it is gone");
    assert_eq!(facts(&status).1, "CREDENTIALS_INVALID");
    for _ in 0..3 {
        let next = timeout(PATIENCE, staying_stream.message()).await;
        let next = next.expect("checkpoints come").expect("it goes on");
        assert!(next.is_some());
    }
}

#[tokio::test]
async fn changes_name_their_principal_and_request_ids_are_its_own() {
    let dir = Dir::new("actors");
    let key = new_key();
    let server = serve_with_key(&key, &dir).await;
    let mut client = server.client();
    let request_id = request_id();
    let mut create = async |subject: &str| {
        let request = CreateVoiceCallRequest {
            voice_call: Some(inbound()),
            request_id: request_id.clone(),
            ..Default::default()
        };
        let token = token(&key, subject, Duration::from_secs(60));
        let created = client.create_voice_call(with_token(request, &token)).await;
        let created = created.expect("it is good").into_inner().voice_call;
        created.expect("always set")
    };
    let (first, again) = (create("amy").await, create("amy").await);
    let other: VoiceCall = create("bob").await;
    assert_eq!(first.uid, again.uid);
    assert_ne!(first.uid, other.uid);
    let token = token(&key, "carol", Duration::from_secs(60));
    let request = with_token(ListVoiceCallChangesRequest::default(), &token);
    let changes = client.list_voice_call_changes(request).await;
    let events = changes.expect("it is good").into_inner().events;
    let actors: Vec<_> = events
        .iter()
        .map(|event| event.change.as_ref().expect("always set").actor.as_str())
        .collect();
    assert_eq!(actors, ["jwt:amy", "jwt:bob"]);
}
