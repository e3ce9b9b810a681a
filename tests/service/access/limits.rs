//! Limits of a principal: each is reached and freed again over all its connections, and costs no
//! other principal anything.

use std::time::{Duration, Instant, SystemTime};

use futures_util::{StreamExt, stream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use voicecall::{
    auth::{Scope, policy},
    proto::{
        GetVoiceCallRequest, GetVoiceCallStatsRequest, ImportVoiceCallsRequest,
        ImportVoiceCallsResponse, ListVoiceCallsRequest, WatchVoiceCallsResponse,
    },
};

use super::{hang_up, with_token};
use crate::support::{
    Client,
    dir::Dir,
    eventually, facts, metadata,
    postgres::Cluster,
    request_id, retry_after,
    server::{Process, SERVING, channel, health},
    watcher::{from, live},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A principal of the policy file.
struct Named {
    token: String,
    entry: String,
}

impl Named {
    /// With all scopes, and these lines in its entry.
    fn new(name: &str, lines: &str) -> Self {
        let scopes = Scope::ALL.into_iter().collect();
        let expires_at = SystemTime::now() + Duration::from_secs(3600);
        let made = policy::new_token(name, scopes, None, expires_at);
        let (token, entry) = made.expect("a good name");
        let entry = format!("{entry}{lines}\n");
        Self { token, entry }
    }
}

/// A server with this policy and these settings.
async fn server(dir: &Dir, principals: &[&Named], settings: &[(&str, &str)]) -> Process {
    write_policy(dir, principals);
    let url = Cluster::shared().await.database().await;
    let policy = dir.path("policy.toml");
    let mut environment = vec![
        ("DATABASE_URL", url.as_str()),
        ("VOICECALL_AUTH_POLICY", &policy),
    ];
    environment.extend(settings);
    Process::start(&environment)
}

fn write_policy(dir: &Dir, principals: &[&Named]) {
    let entries: String = principals.iter().map(|one| one.entry.as_str()).collect();
    dir.write("policy.toml", &entries);
}

/// Asserts that this limit is reached.
#[track_caller]
fn assert_limited(status: &Status, limit: &str, message: &str) {
    let (code, reason, _) = facts(status);
    assert_eq!(
        (code, reason.as_str()),
        (Code::ResourceExhausted, "RATE_LIMITED"),
        "{}",
        status.message()
    );
    assert_eq!(metadata(status)["limit"], limit);
    assert!(status.message().contains(message), "{}", status.message());
    assert!(retry_after(status).is_some(), "{status:?}");
}

async fn watch(
    client: &mut Client,
    token: &str,
) -> Result<Streaming<WatchVoiceCallsResponse>, Status> {
    let watched = client.watch_voice_calls(with_token(from(live()), token));
    Ok(watched.await?.into_inner())
}

/// An import that sends nothing, and ends when `end` is cancelled.
async fn import(
    client: &mut Client,
    token: &str,
    end: &CancellationToken,
) -> Result<Streaming<ImportVoiceCallsResponse>, Status> {
    let records = stream::pending::<ImportVoiceCallsRequest>();
    let records = records.take_until(end.clone().cancelled_owned());
    let imported = client.import_voice_calls(with_token(records, token));
    Ok(imported.await?.into_inner())
}

async fn statistics(client: &mut Client, token: &str) -> Result<(), Status> {
    let request = GetVoiceCallStatsRequest::default();
    let counted = client.get_voice_call_stats(with_token(request, token));
    counted.await.map(drop)
}

async fn list(client: &mut Client, token: &str) -> Result<(), Status> {
    let request = ListVoiceCallsRequest::default();
    let listed = client.list_voice_calls(with_token(request, token));
    listed.await.map(drop)
}

/// Sends requests by one connection and the other in turn until one is refused. Returns how many
/// were accepted.
async fn list_until_refused(clients: [&mut Client; 2], token: &str) -> (u32, Status) {
    let [one, two] = clients;
    let mut accepted = 0;
    loop {
        let client = if accepted % 2 == 0 {
            &mut *one
        } else {
            &mut *two
        };
        match list(client, token).await {
            Ok(()) => accepted += 1,
            Err(status) => return (accepted, status),
        }
    }
}

/// Two connections of one client.
fn two_connections(server: &Process) -> (Client, Client) {
    (server.client(), server.client())
}

#[tokio::test]
async fn watches_are_counted_over_all_connections_until_they_end() {
    let dir = Dir::new("limited-watches");
    let (amy, bob) = (Named::new("amy", ""), Named::new("bob", ""));
    let limit = [("VOICECALL_PRINCIPAL_MAX_WATCHES", "2")];
    let server = server(&dir, &[&amy, &bob], &limit).await;
    let (mut one, mut two) = two_connections(&server);
    let first = watch(&mut one, &amy.token).await.expect("the first");
    let _second = watch(&mut two, &amy.token).await.expect("the second");
    for client in [&mut one, &mut two] {
        let status = watch(client, &amy.token).await.expect_err("a third");
        assert_limited(&status, "watches", "this principal has its 2 watches");
    }
    let _other = watch(&mut one, &bob.token).await.expect("another's");
    list(&mut one, &amy.token).await.expect("no watch");
    drop(first);
    eventually("the watch that has ended makes room", async || {
        watch(&mut two, &amy.token).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn transfers_are_refused_before_their_records_are_read() {
    let dir = Dir::new("limited-transfers");
    let (amy, bob) = (Named::new("amy", ""), Named::new("bob", ""));
    let limit = [("VOICECALL_PRINCIPAL_MAX_TRANSFERS", "1")];
    let server = server(&dir, &[&amy, &bob], &limit).await;
    let (mut one, mut two) = two_connections(&server);
    let (end, never) = (CancellationToken::new(), CancellationToken::new());
    let first = import(&mut one, &amy.token, &end).await;
    let _first = first.expect("the first");
    let message = "its 1 imports, exports and requests for statistics";
    let status = statistics(&mut two, &amy.token).await.expect_err("another");
    assert_limited(&status, "transfers", message);
    // Its records never come.
    let refused = timeout(PATIENCE, import(&mut two, &amy.token, &never)).await;
    let status = refused.expect("it is not waited for").expect_err("another");
    assert_limited(&status, "transfers", message);
    statistics(&mut two, &bob.token).await.expect("another's");
    end.cancel();
    eventually("the import that has ended makes room", async || {
        statistics(&mut two, &amy.token).await.is_ok()
    })
    .await;
    statistics(&mut one, &amy.token)
        .await
        .expect("one at a time");
}

#[tokio::test]
async fn requests_are_counted_over_all_connections_until_they_end() {
    let dir = Dir::new("limited-requests");
    let (amy, bob) = (Named::new("amy", ""), Named::new("bob", ""));
    let limit = [("VOICECALL_PRINCIPAL_MAX_REQUESTS", "1")];
    let server = server(&dir, &[&amy, &bob], &limit).await;
    let (mut one, mut two) = two_connections(&server);
    // It waits for five seconds, for a revision that does not come.
    let request = GetVoiceCallRequest {
        uid: request_id(),
        min_revision: 1_000_000,
    };
    let token = amy.token.clone();
    let waiting = tokio::spawn(async move {
        loop {
            let request = with_token(request.clone(), &token);
            let waited = one.get_voice_call(request).await;
            let status = waited.expect_err("there is no such call");
            // The one below may have come first.
            if facts(&status).1 != "RATE_LIMITED" {
                return status;
            }
        }
    });
    let mut refused = None;
    eventually("the other request is in progress", async || {
        refused = list(&mut two, &amy.token).await.err();
        refused.is_some()
    })
    .await;
    let message = "this principal has its 1 requests in progress";
    assert_limited(&refused.expect("just seen"), "requests", message);
    list(&mut two, &bob.token).await.expect("another's");
    let waited = timeout(PATIENCE, waiting).await.expect("it ends");
    let status = waited.expect("no panic");
    assert_eq!(facts(&status).1, "REVISION_NOT_REACHED");
    eventually("the request that has ended makes room", async || {
        list(&mut two, &amy.token).await.is_ok()
    })
    .await;
    // A watch has no place of a request.
    let _watch = watch(&mut two, &amy.token).await.expect("the first");
    list(&mut two, &amy.token).await.expect("there is room");
}

#[tokio::test]
async fn requests_beyond_the_rate_are_accepted_when_the_service_says_so() {
    const RATE: f64 = 4.0;
    const BURST: u32 = 8;
    let dir = Dir::new("limited-rate");
    let (amy, bob) = (Named::new("amy", ""), Named::new("bob", ""));
    let limit = [
        ("VOICECALL_PRINCIPAL_RATE", "4"),
        ("VOICECALL_PRINCIPAL_BURST", "8"),
    ];
    let server = server(&dir, &[&amy, &bob], &limit).await;
    let (mut one, mut two) = two_connections(&server);
    let began = Instant::now();
    let (accepted, status) = list_until_refused([&mut one, &mut two], &amy.token).await;
    assert!(accepted >= BURST, "{accepted}");
    let at_most = f64::from(BURST) + began.elapsed().as_secs_f64() * RATE;
    assert!(f64::from(accepted) <= at_most, "{accepted}");
    assert_limited(&status, "rate", "its 4 requests a second");
    for _ in 0..BURST {
        list(&mut one, &bob.token).await.expect("another's");
    }
    for _ in 0..2 * BURST {
        assert_eq!(health(channel(&server.endpoint), "").await, SERVING);
    }
    for _ in 0..3 {
        let (_, status) = list_until_refused([&mut one, &mut two], &amy.token).await;
        let delay = retry_after(&status).expect("it is told");
        assert!(delay.as_secs_f64() <= 1.0 / RATE, "{delay:?}");
        sleep(delay).await;
        list(&mut one, &amy.token).await.expect("it is the time");
    }
}

#[tokio::test]
async fn the_policy_file_has_exceptions_and_a_change_takes_effect() {
    let dir = Dir::new("limited-policy");
    let (amy, bob) = (
        Named::new("amy", "limits = { watches = 2 }"),
        Named::new("bob", ""),
    );
    let limit = [("VOICECALL_PRINCIPAL_MAX_WATCHES", "1")];
    let server = server(&dir, &[&amy, &bob], &limit).await;
    let mut client = server.client();
    let mut first = watch(&mut client, &amy.token).await.expect("the first");
    let _second = watch(&mut client, &amy.token).await.expect("the second");
    let _other = watch(&mut client, &bob.token).await.expect("the first");
    let status = watch(&mut client, &bob.token).await.expect_err("a second");
    assert_limited(&status, "watches", "this principal has its 1 watches");
    let more = Named {
        entry: amy.entry.replace("watches = 2", "watches = 3"),
        token: amy.token.clone(),
    };
    write_policy(&dir, &[&more, &bob]);
    hang_up(&server);
    let ended = async {
        loop {
            if let Err(status) = first.message().await {
                return status;
            }
        }
    };
    let ended = timeout(PATIENCE, ended).await.expect("it ends");
    assert_eq!(facts(&ended).1, "CREDENTIALS_INVALID");
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(watch(&mut client, &amy.token).await.expect("within three"));
    }
    let status = watch(&mut client, &amy.token).await.expect_err("a fourth");
    assert_limited(&status, "watches", "this principal has its 3 watches");
}
