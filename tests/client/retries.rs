//! What the client sends again, when, and what it never does.

use std::{pin::pin, time::Duration};

use futures_util::StreamExt;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use voicecall::{
    client::{Client, Error, Settings},
    proto::{
        CreateVoiceCallRequest, DeleteVoiceCallRequest, ErrorReason, GetVoiceCallRequest,
        HandleVoiceCallRequest, ListVoiceCallsRequest, Live, UndeleteVoiceCallRequest,
        UpdateVoiceCallRequest, VoiceCall, WatchVoiceCallsRequest,
        watch_voice_calls_request::Start,
    },
};

use crate::{
    gate::{Act, Gate},
    support::{Server, eventually, inbound, postgres, reference, request_id, secured::free_port},
};

fn client(endpoint: &str) -> Client {
    Client::new(&Settings::new(endpoint)).expect("good settings")
}

fn creation(request_id: &str) -> CreateVoiceCallRequest {
    CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        request_id: request_id.into(),
        ..Default::default()
    }
}

fn lookup() -> GetVoiceCallRequest {
    GetVoiceCallRequest {
        uid: reference().uid,
        ..Default::default()
    }
}

/// An error as the service would send it.
fn refusal(code: Code, reason: &str, retry_after: Option<Duration>) -> Act {
    let mut details = ErrorDetails::new();
    details.set_error_info(
        reason,
        "voicecall.v1",
        [("key".to_owned(), "value".to_owned())],
    );
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Act::Refuse(Status::with_error_details(code, "not now", details))
}

fn away(retry_after: Duration) -> Act {
    refusal(Code::Unavailable, "DATABASE_UNAVAILABLE", Some(retry_after))
}

#[tokio::test]
async fn a_write_is_sent_again_with_the_same_request_id_after_the_time_that_was_asked_for() {
    let server = Server::start().await;
    let delay = Duration::from_millis(150);
    let gate = Gate::start(&server.endpoint, [away(delay), away(delay)]).await;
    let call = client(&gate.endpoint).create(creation("")).await;
    assert_eq!(call.expect("it is created in the end").revision, 1);
    let seen = gate.seen();
    let ids: Vec<String> = seen
        .iter()
        .map(|one| one.message::<CreateVoiceCallRequest>().request_id)
        .collect();
    uuid::Uuid::parse_str(&ids[0]).expect("the client made a request id");
    assert_eq!(ids, vec![ids[0].clone(); 3]);
    for pair in seen.windows(2) {
        assert!(pair[1].at - pair[0].at >= delay);
    }
    let attempts: Vec<_> = seen
        .iter()
        .map(|one| one.header("grpc-previous-rpc-attempts"))
        .collect();
    assert_eq!(attempts, [None, Some("1"), Some("2")]);
}

#[tokio::test]
async fn a_limit_of_the_caller_is_waited_for_by_requests_and_watches() {
    let server = Server::start().await;
    let delay = Duration::from_millis(300);
    let limited = || refusal(Code::ResourceExhausted, "RATE_LIMITED", Some(delay));
    let gate = Gate::start(&server.endpoint, [limited(), limited()]).await;
    let call = client(&gate.endpoint).create(creation("")).await;
    assert_eq!(call.expect("it is created in the end").revision, 1);
    let watched = Gate::alone((0..3).map(|_| limited())).await;
    let request = WatchVoiceCallsRequest {
        start: Some(Start::Live(Live {})),
        ..Default::default()
    };
    let mut watch = pin!(client(&watched.endpoint).watch(request));
    let third = eventually("it is tried again", async || watched.seen().len() == 3);
    tokio::select! {
        () = third => {}
        next = watch.next() => panic!("{next:?}"),
    }
    for seen in [gate.seen(), watched.seen()] {
        assert_eq!(seen.len(), 3);
        for pair in seen.windows(2) {
            assert!(pair[1].at - pair[0].at >= delay);
        }
    }
}

#[tokio::test]
async fn every_write_gets_a_request_id_of_its_own_unless_the_caller_has_one() {
    let unknown = || refusal(Code::Unknown, "OUTCOME_UNKNOWN", None);
    let gate = Gate::alone((0..7).map(|_| unknown())).await;
    let client = client(&gate.endpoint);
    let given = request_id();
    let uid = reference().uid;
    client.create(creation(&given)).await.expect_err("refused");
    client.create(creation("")).await.expect_err("refused");
    let batch = voicecall::proto::BatchCreateVoiceCallsRequest {
        voice_calls: vec![inbound()],
        ..Default::default()
    };
    client.batch_create(batch).await.expect_err("refused");
    let update = UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: uid.clone(),
            ..VoiceCall::default()
        }),
        ..Default::default()
    };
    client.update(update).await.expect_err("refused");
    let handle = HandleVoiceCallRequest {
        uid: uid.clone(),
        ..Default::default()
    };
    client.handle(handle).await.expect_err("refused");
    let delete = DeleteVoiceCallRequest {
        uid: uid.clone(),
        ..Default::default()
    };
    client.delete(delete).await.expect_err("refused");
    let undelete = UndeleteVoiceCallRequest {
        uid,
        ..Default::default()
    };
    client.undelete(undelete).await.expect_err("refused");
    let seen = gate.seen();
    let mut ids = vec![
        seen[0].message::<CreateVoiceCallRequest>().request_id,
        seen[1].message::<CreateVoiceCallRequest>().request_id,
        seen[2]
            .message::<voicecall::proto::BatchCreateVoiceCallsRequest>()
            .request_id,
        seen[3].message::<UpdateVoiceCallRequest>().request_id,
        seen[4].message::<HandleVoiceCallRequest>().request_id,
        seen[5].message::<DeleteVoiceCallRequest>().request_id,
        seen[6].message::<UndeleteVoiceCallRequest>().request_id,
    ];
    assert_eq!(ids[0], given);
    assert!(
        ids.iter().all(|id| uuid::Uuid::parse_str(id).is_ok()),
        "{ids:?}"
    );
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 7);
}

#[tokio::test]
async fn a_write_whose_response_is_lost_is_applied_once() {
    let server = Server::start().await;
    let gate = Gate::start(&server.endpoint, [Act::LoseAnswer, Act::LoseAnswer]).await;
    let call = client(&gate.endpoint).create(creation("")).await;
    let call = call.expect("it is answered in the end");
    assert_eq!((call.revision, gate.seen().len()), (1, 3));
    let database = postgres::connect(&server.database_url).await;
    let contents = postgres::contents(&database).await;
    assert_eq!(
        (contents.calls, contents.changes, contents.records),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn a_read_goes_on_over_a_new_connection() {
    let server = Server::start().await;
    let gate = Gate::start(&server.endpoint, [Act::Cut, Act::Cut]).await;
    let error = client(&gate.endpoint)
        .get(lookup())
        .await
        .expect_err("there is none");
    assert_eq!(error.reason(), Some(ErrorReason::CallNotFound));
    assert_eq!((error.details.attempts, gate.seen().len()), (3, 3));
}

#[tokio::test]
async fn an_overloaded_service_is_asked_again_when_it_says_so() {
    let server = Server::start().await;
    let overloaded = refusal(
        Code::ResourceExhausted,
        "OVERLOADED",
        Some(Duration::from_millis(1)),
    );
    let gate = Gate::start(&server.endpoint, [overloaded]).await;
    let page = client(&gate.endpoint)
        .list_page(ListVoiceCallsRequest::default())
        .await;
    assert_eq!(page.expect("a page").voice_calls, []);
    assert_eq!(gate.seen().len(), 2);
}

#[tokio::test]
async fn other_codes_are_never_sent_again() {
    let codes = (1..17).map(Code::from_i32);
    let final_codes = codes.filter(|code| *code != Code::Unavailable);
    for code in final_codes {
        let gate = Gate::alone([refusal(code, "MESSAGE_TOO_LARGE", None)]).await;
        let error = client(&gate.endpoint)
            .create(creation(""))
            .await
            .expect_err("refused");
        assert_eq!((error.code, error.details.attempts), (code, 1));
        assert_eq!(gate.seen().len(), 1, "{code:?}");
    }
    let retry = Some(Duration::from_millis(1));
    let gate = Gate::alone([refusal(Code::Unknown, "OUTCOME_UNKNOWN", retry)]).await;
    client(&gate.endpoint)
        .create(creation(""))
        .await
        .expect_err("refused");
    assert_eq!(gate.seen().len(), 1);
}

#[tokio::test]
async fn the_fifth_refusal_is_the_answer_with_all_it_says() {
    let delay = Duration::from_millis(1);
    let gate = Gate::alone((0..6).map(|_| away(delay))).await;
    let error = client(&gate.endpoint)
        .get(lookup())
        .await
        .expect_err("refused");
    assert_eq!(gate.seen().len(), 5);
    assert_eq!(error.code, Code::Unavailable);
    assert_eq!(error.message, "not now");
    assert_eq!(error.reason(), Some(ErrorReason::DatabaseUnavailable));
    assert_eq!(error.details.metadata["key"], "value");
    assert_eq!(error.details.retry_after, Some(delay));
    assert_eq!(error.details.attempts, 5);
}

#[tokio::test]
async fn a_reason_that_the_client_does_not_know_keeps_its_name() {
    let gate = Gate::alone([refusal(Code::Aborted, "SOMETHING_NEW", None)]).await;
    let error = client(&gate.endpoint)
        .get(lookup())
        .await
        .expect_err("refused");
    assert_eq!(error.reason(), None);
    assert_eq!(error.details.reason.as_deref(), Some("SOMETHING_NEW"));
}

#[tokio::test]
async fn a_delay_beyond_the_deadline_is_not_waited_for() {
    let gate = Gate::alone([away(Duration::from_mins(1))]).await;
    let begun = Instant::now();
    let error = client(&gate.endpoint)
        .get(lookup())
        .await
        .expect_err("refused");
    assert_eq!((error.code, gate.seen().len()), (Code::Unavailable, 1));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Milliseconds of a `grpc-timeout`.
fn timeout_of(header: &str) -> f64 {
    let (digits, unit) = header.split_at(header.len() - 1);
    let scale = match unit {
        "S" => 1_000.0,
        "m" => 1.0,
        "u" => 1e-3,
        "n" => 1e-6,
        other => panic!("{other}"),
    };
    digits.parse::<f64>().expect("a number") * scale
}

#[tokio::test]
async fn all_attempts_share_one_deadline_which_is_sent_to_the_service() {
    let gate = Gate::alone([away(Duration::from_millis(100)), Act::Hold]).await;
    let client = client(&gate.endpoint).with_deadline(Duration::from_millis(600));
    let begun = Instant::now();
    let error = client.get(lookup()).await.expect_err("no answer");
    let took = begun.elapsed();
    assert_eq!(error.code, Code::DeadlineExceeded);
    assert_eq!(
        error.message,
        "no response within 600ms; a write may have been applied; the previous attempt: not now"
    );
    assert!(
        took >= Duration::from_millis(500) && took < Duration::from_secs(5),
        "{took:?}"
    );
    let seen = gate.seen();
    let told: Vec<f64> = seen
        .iter()
        .map(|one| timeout_of(one.header("grpc-timeout").expect("it is told")))
        .collect();
    assert!(told[0] <= 600.0 && told[0] > 300.0, "{told:?}");
    assert!(told[1] <= told[0] - 100.0, "{told:?}");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unavailable_after_five_attempts() {
    let client = client(&format!("http://127.0.0.1:{}", free_port()));
    let error: Error = client.get(lookup()).await.expect_err("nobody listens");
    assert_eq!((error.code, error.details.attempts), (Code::Unavailable, 5));
    assert!(error.message.contains("refused"), "{error}");
}

#[tokio::test]
async fn the_token_goes_with_every_request() {
    let server = Server::start().await;
    let gate = Gate::start(&server.endpoint, [away(Duration::from_millis(1))]).await;
    let settings = Settings {
        token: Some("secret\n".into()),
        ..Settings::new(&gate.endpoint)
    };
    assert!(!format!("{settings:?}").contains("secret"));
    let client = Client::new(&settings).expect("good settings");
    client.create(creation("")).await.expect("created");
    let page = client.list_page(ListVoiceCallsRequest::default()).await;
    assert_eq!(page.expect("a page").voice_calls.len(), 1);
    let seen = gate.seen();
    let tokens: Vec<_> = seen.iter().map(|one| one.header("authorization")).collect();
    assert_eq!(tokens, [Some("Bearer secret"); 3]);
}
