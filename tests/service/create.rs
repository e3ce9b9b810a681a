//! CreateVoiceCall and BatchCreateVoiceCalls.

use tonic::Code;
use voicecall::api::proto;

use crate::support::{Server, assert_refused, create, get, inbound, reference};

#[tokio::test]
async fn the_reference_example_comes_back_value_for_value() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    let expected = proto::VoiceCall {
        updated_at: created.updated_at,
        revision: 1,
        ..reference()
    };
    assert_eq!(created, expected);
    assert_eq!(
        get(&mut client, &created.uid).await.expect("it is there"),
        expected
    );
}

#[tokio::test]
async fn a_taken_uid_is_refused_in_any_letter_case() {
    let server = Server::start().await;
    let mut client = server.client();
    create(&mut client, reference()).await;
    let request = proto::CreateVoiceCallRequest {
        voice_call: Some(proto::VoiceCall {
            uid: reference().uid.to_uppercase(),
            ..inbound()
        }),
        ..Default::default()
    };
    let result = client.create_voice_call(request).await;
    assert_refused(result, Code::AlreadyExists, "CALL_ALREADY_EXISTS", &[]);
}
