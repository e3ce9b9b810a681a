//! Page tokens: changed ones and those of other lists are refused.

use tonic::Code;
use voicecall::proto::{ListVoiceCallsRequest, VoiceCallFilter};

use crate::support::{Server, assert_refused, create, inbound, request_id};

#[tokio::test]
async fn a_page_token_that_was_changed_is_refused() {
    let server = Server::start().await;
    let mut client = server.client();
    for _ in 0..3 {
        create(&mut client, inbound()).await;
    }
    let request = |page_token: String| ListVoiceCallsRequest {
        page_size: 1,
        page_token,
        ..Default::default()
    };
    let page = client.list_voice_calls(request(String::new())).await;
    let token = page.expect("a page").into_inner().next_page_token;
    client
        .list_voice_calls(request(token.clone()))
        .await
        .expect("it is good");
    let mut bad: Vec<String> = (0..token.len())
        .map(|place| {
            let mut bytes = token.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).expect("ASCII")
        })
        .collect();
    bad.extend([
        token[1..].to_owned(),
        format!("{token}A"),
        format!("{token}="),
        "x".into(),
    ]);
    bad.extend([
        " ".into(),
        "\0".into(),
        "ü".repeat(25),
        "A".repeat(100_000),
        request_id(),
    ]);
    for token in bad {
        let result = client.list_voice_calls(request(token)).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_PAGE_TOKEN", &[]);
    }
}

#[tokio::test]
async fn a_page_token_of_another_list_is_refused() {
    let server = Server::start().await;
    let mut client = server.client();
    for _ in 0..3 {
        create(&mut client, inbound()).await;
    }
    let first = ListVoiceCallsRequest {
        page_size: 1,
        ..Default::default()
    };
    let page = client.list_voice_calls(first.clone()).await;
    let page_token = page.expect("a page").into_inner().next_page_token;
    let next = ListVoiceCallsRequest {
        page_token,
        ..first
    };
    let filter = |filter: VoiceCallFilter| ListVoiceCallsRequest {
        filter: Some(filter),
        ..next.clone()
    };
    let order = |order_by: &str| ListVoiceCallsRequest {
        order_by: order_by.into(),
        ..next.clone()
    };
    for same in [
        filter(VoiceCallFilter::default()),
        order(" created_at  desc "),
        ListVoiceCallsRequest {
            page_size: 1000,
            ..next.clone()
        },
    ] {
        client.list_voice_calls(same).await.expect("the same list");
    }
    for other in [
        order("created_at"),
        order("updated_at desc"),
        filter(VoiceCallFilter {
            show_deleted: true,
            ..Default::default()
        }),
        filter(VoiceCallFilter {
            statuses: vec![1],
            ..Default::default()
        }),
        filter(VoiceCallFilter {
            handled: Some(false),
            ..Default::default()
        }),
    ] {
        let result = client.list_voice_calls(other).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_PAGE_TOKEN", &[]);
    }
}
