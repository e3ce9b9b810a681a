//! What no well-behaved client sends: bytes that are no message, messages over
//! the limit, methods that are none. The connection lives on.

use tonic::Code;
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
