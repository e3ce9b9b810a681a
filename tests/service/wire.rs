//! What no well-behaved client sends: bytes that are no message, messages over
//! the limit, methods that are none. The connection lives on.

use http::{Method, Request, StatusCode};
use prost::Message;
use tonic::{Code, Status};
use voicecall::proto;

use crate::{
    bad_input::Fixture,
    support::{
        assert_refused,
        raw::{Raw, frame},
        reference,
    },
};

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_the_connection_lives_on() {
    let mut fixture = Fixture::new().await;
    let mut raw = Raw::connect(&fixture.server.endpoint).await;
    for len in [4 * 1024 * 1024 + 1, 6 * 1024 * 1024] {
        let answer = raw.post("CreateVoiceCall", &[], frame(&vec![0; len])).await;
        let result: Result<(), _> = Err(answer.status);
        assert_refused(result, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", &[]);
    }
    let request = proto::GetVoiceCallRequest {
        uid: reference().uid,
        ..Default::default()
    };
    let answer = raw.call("GetVoiceCall", &[], &request).await;
    assert_eq!(answer.status.code(), Code::Ok);
    fixture.assert_untouched().await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_and_the_connection_lives_on() {
    let mut fixture = Fixture::new().await;
    let mut raw = Raw::connect(&fixture.server.endpoint).await;
    let not_utf8 = [10, 3, 58, 1, 0xff];
    let unfinished_field = [10, 100, 1];
    let wrong_wire_type = [8, 1];
    let mut truncated = frame(&[0; 100]);
    truncated.truncate(50);
    let mut compressed = frame(&[]);
    compressed[0] = 1;
    let mut bad_flag = frame(&[]);
    bad_flag[0] = 77;
    let two = [frame(&[]), frame(&[])].concat();
    for (what, body) in [
        ("text that is not UTF-8", frame(&not_utf8)),
        ("an unfinished field", frame(&unfinished_field)),
        ("another wire type", frame(&wrong_wire_type)),
        ("noise", frame(&[0xff; 64])),
        ("a truncated frame", truncated),
        ("a truncated prefix", vec![0, 0, 0]),
        ("no message", vec![]),
        ("a compression that was not announced", compressed),
        ("a flag that is none", bad_flag),
    ] {
        let answer = raw.post("CreateVoiceCall", &[], body).await;
        assert_eq!(answer.status.code(), Code::InvalidArgument, "{what}");
        let result: Result<(), _> = Err(answer.status);
        assert_refused(result, Code::InvalidArgument, "MALFORMED_MESSAGE", &[]);
    }
    // Two messages where one belongs: not taken for one.
    let answer = raw.post("CreateVoiceCall", &[], two).await;
    assert_eq!(answer.status.code(), Code::InvalidArgument);
    let request = proto::GetVoiceCallRequest {
        uid: reference().uid,
        ..Default::default()
    };
    let answer = raw.call("GetVoiceCall", &[], &request).await;
    assert_eq!(answer.status.code(), Code::Ok);
    fixture.assert_untouched().await;
}

#[tokio::test]
async fn a_method_that_is_none_is_unimplemented_and_the_connection_lives_on() {
    let mut fixture = Fixture::new().await;
    let mut raw = Raw::connect(&fixture.server.endpoint).await;
    for path in [
        "MakeCoffee",
        "/voicecall.v1.VoiceCallService/",
        "/voicecall.v2.VoiceCallService/GetVoiceCall",
        "/",
        "/nothing/at/all",
    ] {
        let answer = raw.post(path, &[], frame(&[])).await;
        let result: Result<(), _> = Err(answer.status);
        assert_refused(result, Code::Unimplemented, "UNKNOWN_METHOD", &[]);
    }
    let answer = raw
        .call(
            "ListVoiceCalls",
            &[],
            &proto::ListVoiceCallsRequest::default(),
        )
        .await;
    assert_eq!(answer.status.code(), Code::Ok);
    fixture.assert_untouched().await;
}

#[tokio::test]
async fn what_is_not_grpc_is_an_unsupported_media_type() {
    let mut fixture = Fixture::new().await;
    let mut raw = Raw::connect(&fixture.server.endpoint).await;
    let get = "/voicecall.v1.VoiceCallService/GetVoiceCall";
    let health = "/grpc.health.v1.Health/Check";
    for (method, path, content_type) in [
        (Method::POST, get, Some("application/json")),
        (Method::POST, get, Some("application/grpc-web+proto")),
        (Method::POST, get, Some("")),
        (Method::POST, get, None),
        (Method::POST, health, Some("application/json")),
        (Method::GET, "/", None),
    ] {
        let mut request = Request::builder().method(method).uri(raw.uri(path));
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let request = request.body(frame(&[]).into());
        let response = raw.send(request.expect("valid")).await;
        assert_eq!(response.http_status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(!response.headers.contains_key("grpc-status"));
        assert!(response.headers.contains_key("x-request-id"));
        assert!(response.trailers.is_none());
    }
    for content_type in ["application/grpc+proto", "application/grpc;charset=utf-8"] {
        let request = proto::GetVoiceCallRequest {
            uid: reference().uid,
            ..Default::default()
        };
        let request = Request::post(raw.uri(get))
            .header("content-type", content_type)
            .body(frame(&request.encode_to_vec()).into());
        let response = raw.send(request.expect("valid")).await;
        assert_eq!(response.http_status, StatusCode::OK);
        let trailers = response.trailers.expect("the call was found");
        assert_eq!(trailers["grpc-status"], "0");
    }
    fixture.assert_untouched().await;
}

/// A stream has sent its headers when it meets a message that it cannot take.
#[tokio::test]
async fn errors_in_trailers_have_the_details_of_errors_in_headers() {
    let mut fixture = Fixture::new().await;
    let mut raw = Raw::connect(&fixture.server.endpoint).await;
    let settings = proto::ImportVoiceCallsRequest {
        message: Some(proto::import_voice_calls_request::Message::Settings(
            proto::ImportSettings::default(),
        )),
    };
    let settings = frame(&settings.encode_to_vec());
    let mut too_large = frame(&[]);
    too_large[1..5].copy_from_slice(&(5 * 1024 * 1024_u32).to_be_bytes());
    let mut truncated = frame(&[0; 100]);
    truncated.truncate(50);
    let mut bad_flag = frame(&[]);
    bad_flag[0] = 77;
    for (what, body, code, reason) in [
        (
            "a message over the limit",
            too_large,
            Code::ResourceExhausted,
            "MESSAGE_TOO_LARGE",
        ),
        (
            "a truncated frame",
            truncated,
            Code::InvalidArgument,
            "MALFORMED_MESSAGE",
        ),
        (
            "an invalid flag",
            bad_flag,
            Code::InvalidArgument,
            "MALFORMED_MESSAGE",
        ),
        (
            "noise",
            frame(&[0xff; 64]),
            Code::InvalidArgument,
            "MALFORMED_MESSAGE",
        ),
    ] {
        let body = [settings.clone(), body].concat();
        let request = Request::post(raw.uri("/voicecall.v1.VoiceCallService/ImportVoiceCalls"))
            .header("content-type", "application/grpc")
            .body(body.into());
        let response = raw.send(request.expect("valid")).await;
        assert!(!response.headers.contains_key("grpc-status"), "{what}");
        let trailers = response.trailers.expect("the stream ends with trailers");
        let status = Status::from_header_map(&trailers).expect("a status");
        assert_eq!(status.code(), code, "{what}: {status:?}");
        let result: Result<(), _> = Err(status);
        assert_refused(result, code, reason, &[]);
    }
    fixture.assert_untouched().await;
}
