//! More metadata than the server takes: an error like any other, and the connection lives on.

use tonic::Code;
use voicecall::proto::GetVoiceCallRequest;

use crate::support::{Server, assert_refused, create, raw::Raw, reference};

#[tokio::test]
async fn too_much_metadata_is_refused_with_a_reason_and_the_connection_lives_on() {
    let server = Server::start().await;
    create(&mut server.client(), reference()).await;
    let mut raw = Raw::connect(&server.endpoint).await;
    let request = GetVoiceCallRequest {
        uid: reference().uid,
        ..Default::default()
    };
    // One long value, and many short ones, which count with HTTP/2's overhead of 32 bytes.
    let long = |len| vec![("x-long".to_owned(), "a".repeat(len))];
    let many = |count| (0..count).map(|i| (format!("x-{i}"), "a".to_owned()));
    let health = "/grpc.health.v1.Health/Check";
    for (method, metadata, is_accepted) in [
        ("GetVoiceCall", long(15 * 1024), true),
        ("GetVoiceCall", long(16 * 1024), false),
        ("GetVoiceCall", long(63 * 1024), false),
        ("GetVoiceCall", many(350).collect(), true),
        ("GetVoiceCall", many(500).collect(), false),
        (health, long(16 * 1024), false),
    ] {
        let metadata: Vec<_> = metadata
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let answer = raw.call(method, &metadata, &request).await;
        if is_accepted {
            assert_eq!(answer.status.code(), Code::Ok);
        } else {
            let result: Result<(), _> = Err(answer.status);
            assert_refused(result, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", &[]);
        }
    }
}
