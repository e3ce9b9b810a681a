//! What scripts decide on, and what people read when something is wrong.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use voicecall::proto::CreateVoiceCallRequest;

use crate::{
    gate::{Act, Gate},
    program::run,
    support::{Server, create, inbound, secured::free_port},
};

#[tokio::test]
async fn what_the_service_refuses_has_a_line_a_reason_and_a_code() {
    let server = Server::start().await;
    let call = create(&mut server.client(), inbound()).await;
    let uid = call.uid.as_str();
    let none = "d290f1ee-6c54-4b01-90e6-d701748f0851";
    let cases: [(&[&str], i32, String); 9] = [
        (
            &["get", none],
            3,
            format!("there is no call {none} (CALL_NOT_FOUND)"),
        ),
        (
            &["handle", none, "--by", "ann"],
            3,
            format!("there is no call {none} (CALL_NOT_FOUND)"),
        ),
        (
            &["create", "--direction=inbound", "--uid", uid],
            4,
            format!("call {uid} already exists (CALL_ALREADY_EXISTS)"),
        ),
        (
            &["undelete", uid],
            4,
            format!("call {uid} is not deleted (CALL_NOT_DELETED)"),
        ),
        (
            &["delete", uid, "--expected-revision=7"],
            4,
            format!("call {uid} is at revision 1, not at the expected revision (REVISION_MISMATCH)"),
        ),
        (
            &[
                "create",
                "--direction=inbound",
                "--duration=-1",
                "--recording-url=a",
                "--staff",
                &"x".repeat(65),
            ],
            4,
            "the request was refused (INVALID_FIELD)\n\
             voicecall: staff_uid must be at most 64 characters\n\
             voicecall: recording_url must be an absolute http or https URL\n\
             voicecall: duration must not be negative"
                .into(),
        ),
        (
            &["list", "--uid", "7"],
            4,
            "the request was refused (INVALID_FIELD)\n\
             voicecall: filter.uids[0] must be a UUID such as d290f1ee-6c54-4b01-90e6-d701748f0851"
                .into(),
        ),
        (
            &["create", "--direction=inbound", "--request-id=x"],
            4,
            "the request was refused (INVALID_FIELD)\nvoicecall: request_id must be a UUID such as d290f1ee-6c54-4b01-90e6-d701748f0851".into(),
        ),
        (
            &["update", uid, "--status=missed", "--expected-revision=-1"],
            4,
            "the request was refused (INVALID_FIELD)\n\
             voicecall: expected_revision must not be negative"
                .into(),
        ),
    ];
    for (args, code, expected) in cases {
        let ran = run(&server.endpoint, args).await;
        assert_eq!(ran.stderr, format!("voicecall: {expected}\n"), "{args:?}");
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(code), ""),
            "{args:?}"
        );
    }
}

#[tokio::test]
async fn wrong_usage_is_2() {
    let uid = "d290f1ee-6c54-4b01-90e6-d701748f0851";
    let cases: [(&[&str], &str); 14] = [
        (&["get"], "<UID>"),
        (&["gets"], "gets"),
        (&["create"], "--direction"),
        (&["create", "--direction=up"], "inbound, outbound"),
        (&["list", "--status=answered"], "answered-by-staff"),
        (&["list", "--created-after=now"], "2026-11-23"),
        (&["list", "--limit=1", "--all"], "--limit"),
        (&["list", "--limit=0"], "--limit"),
        (&["update", uid], "nothing to update"),
        (
            &["update", uid, "--client=a", "--clear=client"],
            "client_uid cannot be both set and cleared",
        ),
        (&["get", uid, "--timeout=0"], "seconds"),
        (&["get", uid, "--endpoint=localhost:50051"], "http://"),
        (&["get", uid, "--ca-cert=ca.pem"], "https://"),
        (&["get", uid, "--client-cert=ca.pem"], "--client-key"),
    ];
    for (args, told) in cases {
        let ran = run("http://127.0.0.1:1", args).await;
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(2), ""),
            "{args:?}: {ran:?}"
        );
        assert!(ran.stderr.contains(told), "{args:?}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_5() {
    let port = free_port();
    let ran = run(&format!("http://127.0.0.1:{port}"), &["list"]).await;
    assert_eq!(ran.code, Some(5));
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 1);
    let expected =
        format!("voicecall: no response from http://127.0.0.1:{port}: Connection refused");
    assert!(lines[0].starts_with(&expected), "{}", lines[0]);
    assert!(
        lines[0].ends_with("(UNAVAILABLE, after 5 attempts)"),
        "{}",
        lines[0]
    );
}

#[tokio::test]
async fn a_service_that_does_not_answer_in_time_is_5() {
    let gate = Gate::alone([Act::Hold]).await;
    let ran = run(&gate.endpoint, &["list", "--timeout", "0.3"]).await;
    assert_eq!(ran.code, Some(5));
    let expected = "no response within 300ms; a write may have been applied";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
}

#[tokio::test]
async fn a_write_without_a_response_says_how_to_retry_it_safely() {
    let server = Server::start().await;
    let gate = Gate::start(&server.endpoint, [Act::Hold]).await;
    let create = ["create", "--direction", "inbound", "--timeout", "0.3"];
    let ran = run(&gate.endpoint, &create).await;
    let sent: CreateVoiceCallRequest = gate.seen()[0].message();
    let id = sent.request_id;
    let last = ran.stderr.lines().last();
    let expected =
        format!("voicecall: retry with --request-id {id}; the write is applied at most once");
    assert_eq!((ran.code, last), (Some(5), Some(expected.as_str())));
}

#[tokio::test]
async fn other_answers_have_their_codes() {
    for (code, reason, exit) in [
        (Code::ResourceExhausted, "OVERLOADED", 5),
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE", 4),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", 5),
        (Code::FailedPrecondition, "REVISION_NOT_REACHED", 5),
        (Code::FailedPrecondition, "CALL_DELETED", 4),
        (Code::PermissionDenied, "SOMETHING_NEW", 4),
        (Code::Unauthenticated, "SOMETHING_NEW", 4),
        (Code::Unknown, "OUTCOME_UNKNOWN", 1),
        (Code::Unimplemented, "UNKNOWN_METHOD", 1),
        (Code::Internal, "INTERNAL", 1),
    ] {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, "voicecall.v1", []);
        let status = Status::with_error_details(code, "what\u{1b}[31m\nhappened", details);
        let gate = Gate::alone([Act::Refuse(status)]).await;
        let ran = run(&gate.endpoint, &["list"]).await;
        assert_eq!(ran.code, Some(exit), "{code:?} {reason}");
        // Nobody else's text may control the terminal.
        assert_eq!(
            ran.stderr,
            format!("voicecall: what [31m happened ({reason})\n")
        );
    }
}

#[tokio::test]
async fn an_internal_error_names_the_request_in_the_log() {
    let mut details = ErrorDetails::new();
    details.set_error_info("INTERNAL", "voicecall.v1", []);
    let mut status = Status::with_error_details(Code::Internal, "internal error", details);
    let id = "0abc-1".parse().expect("text");
    status.metadata_mut().insert("x-request-id", id);
    let gate = Gate::alone([Act::Refuse(status)]).await;
    let ran = run(&gate.endpoint, &["list"]).await;
    assert_eq!(
        ran.stderr,
        "voicecall: internal error (INTERNAL, x-request-id: 0abc-1)\n"
    );
}

#[tokio::test]
async fn attempts_are_reported() {
    let server = Server::start().await;
    let mut details = ErrorDetails::new();
    details.set_error_info("DATABASE_UNAVAILABLE", "voicecall.v1", []);
    details.set_retry_info(Some(Duration::from_millis(1)));
    let unavailable = || {
        let message = "the database is unavailable";
        Act::Refuse(Status::with_error_details(
            Code::Unavailable,
            message,
            details.clone(),
        ))
    };
    let gate = Gate::start(&server.endpoint, (0..5).map(|_| unavailable())).await;
    let ran = run(&gate.endpoint, &["list"]).await;
    let expected =
        "voicecall: the database is unavailable (DATABASE_UNAVAILABLE, after 5 attempts)\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(5), expected));
    run(&gate.endpoint, &["list"]).await.ok();
}

#[tokio::test]
async fn the_help_has_the_exit_codes() {
    for args in [
        ["--help"].as_slice(),
        &["get", "--help"],
        &["update", "--help"],
    ] {
        let text = run("", args).await.ok();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.contains("Exit codes: 0 success; 1 any other error; 2 wrong usage; 3 not found;"),
            "{text}"
        );
    }
}
