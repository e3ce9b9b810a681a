//! Compressed requests, which some clients send by one option, and messages that grow beyond
//! all bounds when they are decompressed.

use std::io::Write;

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use prost::Message;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use voicecall::proto::{CreateVoiceCallRequest, GetVoiceCallRequest, GetVoiceCallResponse};

use crate::support::{
    Server, assert_refused, create, get,
    postgres::Cluster,
    raw::{Raw, frame},
    reference,
    server::{Process, settings},
};

pub(super) const GZIP: [(&str, &str); 1] = [("grpc-encoding", "gzip")];
const ACCEPT_GZIP: [(&str, &str); 1] = [("grpc-accept-encoding", "identity,deflate,gzip")];
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// The frame of a message of zeros, or of any other bytes.
pub(super) fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("to memory");
    let mut frame = frame(&encoder.finish().expect("to memory"));
    frame[0] = 1;
    frame
}

fn create_reference() -> Vec<u8> {
    let request = CreateVoiceCallRequest {
        voice_call: Some(reference()),
        ..Default::default()
    };
    request.encode_to_vec()
}

fn get_reference() -> GetVoiceCallRequest {
    GetVoiceCallRequest {
        uid: reference().uid,
        ..Default::default()
    }
}

#[tokio::test]
async fn compressed_requests_are_accepted_and_responses_say_so() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server.endpoint).await;
    for (method, message) in [
        ("CreateVoiceCall", create_reference()),
        ("GetVoiceCall", get_reference().encode_to_vec()),
        (HEALTH, HealthCheckRequest::default().encode_to_vec()),
    ] {
        let headers = [GZIP, ACCEPT_GZIP].concat();
        let answer = raw.post(method, &headers, compressed(&message)).await;
        assert_eq!(answer.status.code(), Code::Ok, "{:?}", answer.status);
        assert_eq!(answer.headers["grpc-accept-encoding"], "gzip,identity");
        // Responses are not compressed unless the server is told to.
        assert!(!answer.headers.contains_key("grpc-encoding"));
        assert_eq!(answer.body[0], 0);
        // A message may also be sent uncompressed.
        let answer = raw.post(method, &GZIP, frame(&message)).await;
        let expected = if method == "CreateVoiceCall" {
            Code::AlreadyExists
        } else {
            Code::Ok
        };
        assert_eq!(answer.status.code(), expected);
    }
}

#[tokio::test]
async fn an_unknown_compression_is_refused_with_the_known_ones() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server.endpoint).await;
    for method in ["GetVoiceCall", HEALTH] {
        let headers = [("grpc-encoding", "snappy")];
        let answer = raw.post(method, &headers, frame(&[])).await;
        assert_eq!(answer.headers["grpc-accept-encoding"], "gzip,identity");
        let result: Result<(), _> = Err(answer.status);
        let reason = "UNSUPPORTED_COMPRESSION";
        assert_refused(result, Code::Unimplemented, reason, &[]);
    }
    let mut truncated = compressed(&create_reference());
    truncated.truncate(40);
    let len = u32::try_from(truncated.len() - 5).expect("short");
    truncated[1..5].copy_from_slice(&len.to_be_bytes());
    let answer = raw.post("CreateVoiceCall", &GZIP, truncated).await;
    let result: Result<(), _> = Err(answer.status);
    assert_refused(result, Code::InvalidArgument, "MALFORMED_MESSAGE", &[]);
}

#[tokio::test]
async fn responses_are_compressed_when_the_setting_says_so_and_the_client_accepts_it() {
    let mut compressing = settings();
    compressing.api.compress_responses = true;
    let server = Server::start_with(compressing).await;
    create(&mut server.client(), reference()).await;
    let mut raw = Raw::connect(&server.endpoint).await;
    let plain = raw.call("GetVoiceCall", &[], &get_reference()).await;
    assert_eq!(plain.body[0], 0);
    let answer = raw
        .call("GetVoiceCall", &ACCEPT_GZIP, &get_reference())
        .await;
    assert_eq!(answer.status.code(), Code::Ok);
    assert_eq!(answer.headers["grpc-encoding"], "gzip");
    assert_eq!(answer.body[0], 1);
    let mut message = Vec::new();
    std::io::copy(&mut GzDecoder::new(&answer.body[5..]), &mut message).expect("it is gzip");
    assert_eq!(message, plain.body[5..]);
    let response = GetVoiceCallResponse::decode(&*message).expect("a response");
    assert_eq!(response.voice_call.expect("a call").uid, reference().uid);
}

#[tokio::test]
async fn a_message_that_grows_beyond_the_limit_is_refused_without_being_held() {
    let url = Cluster::shared().await.database().await;
    let process = Process::start(&[("DATABASE_URL", &url)]);
    let mut raw = Raw::connect(&process.endpoint).await;
    let bomb = compressed(&vec![0; 256 * 1024 * 1024]);
    assert!(bomb.len() < 1024 * 1024);
    let before = process.peak_kib();
    for method in ["CreateVoiceCall", "ImportVoiceCalls", "ListVoiceCalls"] {
        for _ in 0..8 {
            let answer = raw.post(method, &GZIP, bomb.clone()).await;
            let result: Result<(), _> = Err(answer.status);
            assert_refused(result, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", &[]);
        }
    }
    let grown = process.peak_kib() - before;
    assert!(grown < 64 * 1024, "{grown} KiB more");
    // The limit holds for what is decompressed: a message just within it is decoded.
    let within = compressed(&vec![0; 4 * 1024 * 1024]);
    let answer = raw.post("BatchCreateVoiceCalls", &GZIP, within).await;
    let result: Result<(), _> = Err(answer.status);
    assert_refused(result, Code::InvalidArgument, "MALFORMED_MESSAGE", &[]);
}

/// A list of two million empty items, in one message.
#[tokio::test]
async fn a_list_that_grows_when_it_is_decoded_is_refused_before_it_is() {
    let url = Cluster::shared().await.database().await;
    let process = Process::start(&[("DATABASE_URL", &url)]);
    let mut client = process.client();
    let call = create(&mut client, reference()).await;
    let mut raw = Raw::connect(&process.endpoint).await;
    let empty_items = [10, 0].repeat(2_000_000);
    // A filter of a megabyte, whose only field is of packed numbers.
    let statuses = [
        vec![10, 0x84, 0x80, 0x40, 42, 0x80, 0x80, 0x40],
        vec![1; 1 << 20],
    ]
    .concat();
    // And one of empty texts.
    let texts = [vec![10, 0x80, 0x80, 0x40], [18, 0].repeat(1 << 19)].concat();
    let before = process.peak_kib();
    for (method, message, path) in [
        ("BatchCreateVoiceCalls", &empty_items, Some("voice_calls")),
        ("BatchGetVoiceCalls", &empty_items, None),
        ("ListVoiceCalls", &statuses, Some("filter.statuses")),
        ("WatchVoiceCalls", &texts, Some("filter.staff_uids")),
        ("ListVoiceCalls", &texts, Some("filter.staff_uids")),
    ] {
        for _ in 0..4 {
            let answer = raw.post(method, &GZIP, compressed(message)).await;
            let result: Result<(), _> = Err(answer.status);
            match path {
                Some(path) => {
                    assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &[path]);
                }
                // It is over the limit of its method, too.
                None => {
                    let reason = "MESSAGE_TOO_LARGE";
                    assert_refused(result, Code::ResourceExhausted, reason, &[]);
                }
            }
        }
        get(&mut client, &call.uid)
            .await
            .expect("others are served");
    }
    let grown = process.peak_kib() - before;
    assert!(grown < 64 * 1024, "{grown} KiB more");
}
