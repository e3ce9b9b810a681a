//! GetVoiceCall, BatchGetVoiceCalls and ListVoiceCalls.

use std::time::{Duration, Instant};

use tonic::{Code, Status};
use uuid::Uuid;
use voicecall::proto::{
    BatchCreateVoiceCallsRequest, BatchGetVoiceCallsRequest, BatchGetVoiceCallsResponse,
    GetVoiceCallRequest, ListVoiceCallsRequest, ListVoiceCallsResponse, VoiceCall, VoiceCallFilter,
};

use crate::support::{
    Client, Server, assert_refused, create, delete, get, inbound, metadata, micros, raw::Raw,
    reference, server::settings, update,
};

const LIMIT: usize = 2 * 1024 * 1024;

async fn batch_get(client: &mut Client, uids: Vec<String>) -> BatchGetVoiceCallsResponse {
    let request = BatchGetVoiceCallsRequest {
        uids,
        min_revision: 0,
    };
    let response = client.batch_get_voice_calls(request).await;
    response.expect("it is answered").into_inner()
}

async fn page(
    client: &mut Client,
    request: &ListVoiceCallsRequest,
) -> Result<ListVoiceCallsResponse, Status> {
    let response = client.list_voice_calls(request.clone()).await?;
    Ok(response.into_inner())
}

/// All pages of a list.
async fn pages(
    client: &mut Client,
    mut request: ListVoiceCallsRequest,
) -> Vec<ListVoiceCallsResponse> {
    let mut pages = Vec::new();
    loop {
        let page = page(client, &request).await.expect("a page");
        request.page_token.clone_from(&page.next_page_token);
        pages.push(page);
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

fn uids_of(pages: &[ListVoiceCallsResponse]) -> Vec<String> {
    let calls = pages.iter().flat_map(|page| &page.voice_calls);
    calls.map(|call| call.uid.clone()).collect()
}

/// Creates `count` calls, a few at the same time; answers them as recorded.
async fn create_many(client: &mut Client, count: i64) -> Vec<VoiceCall> {
    let calls = (0..count).map(|place| VoiceCall {
        uid: Uuid::new_v4().to_string(),
        created_at: Some(prost_types::Timestamp {
            seconds: 1_700_000_000 + (place * 7919) % (count / 3),
            nanos: 0,
        }),
        ..inbound()
    });
    let request = BatchCreateVoiceCallsRequest {
        voice_calls: calls.collect(),
        ..Default::default()
    };
    let response = client.batch_create_voice_calls(request).await;
    response.expect("it is created").into_inner().voice_calls
}

#[tokio::test]
async fn a_batch_get_answers_in_its_order_and_lists_what_is_missing() {
    let server = Server::start().await;
    let mut client = server.client();
    let calls = create_many(&mut client, 9).await;
    let deleted = delete(&mut client, &calls[4].uid).await.expect("there");
    let absent = "00000000-0000-7000-8000-000000000000".to_owned();
    let other_absent = "00000000-0000-7000-8000-00000000000a".to_owned();
    let uids = vec![
        other_absent.to_uppercase(),
        calls[7].uid.to_uppercase(),
        deleted.uid.clone(),
        absent.clone(),
        calls[1].uid.clone(),
    ];
    let answer = batch_get(&mut client, uids).await;
    let expected = [calls[7].clone(), deleted, calls[1].clone()];
    assert_eq!(answer.voice_calls, expected);
    assert_eq!(answer.missing_uids, [other_absent, absent]);
    assert!(answer.remaining_uids.is_empty());
}

#[tokio::test]
async fn a_batch_get_of_1000_calls_is_answered_at_once() {
    let server = Server::start().await;
    let mut client = server.client();
    let calls = create_many(&mut client, 1000).await;
    let uids = calls.iter().map(|call| call.uid.clone()).collect();
    assert_eq!(batch_get(&mut client, uids).await.voice_calls, calls);
}

#[tokio::test]
async fn no_answer_is_over_2_mib_and_none_is_wasted() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut uids = Vec::new();
    for _ in 0..40 {
        let call = VoiceCall {
            call_summary: Some("a".repeat(65_536)),
            ..inbound()
        };
        uids.push(create(&mut client, call).await.uid);
    }
    let mut raw = Raw::connect(&server.endpoint).await;
    let request = BatchGetVoiceCallsRequest {
        uids: uids.clone(),
        min_revision: 0,
    };
    let answer = raw.call("BatchGetVoiceCalls", &[], &request).await;
    let len = answer.body.len();
    assert!((LIMIT - 3 * 65_536..=LIMIT).contains(&len), "{len} bytes");
    let answer = batch_get(&mut client, uids.clone()).await;
    let found: Vec<_> = answer.voice_calls.iter().map(|call| &call.uid).collect();
    let together: Vec<_> = found.into_iter().chain(&answer.remaining_uids).collect();
    assert_eq!(together, uids.iter().collect::<Vec<_>>());
    assert!(answer.missing_uids.is_empty());

    let all = ListVoiceCallsRequest {
        page_size: 1000,
        order_by: "created_at".into(),
        ..Default::default()
    };
    let answer = raw.call("ListVoiceCalls", &[], &all).await;
    let len = answer.body.len();
    assert!((LIMIT - 3 * 65_536..=LIMIT).contains(&len), "{len} bytes");
    let pages = pages(&mut client, all).await;
    assert_eq!(pages.len(), 2);
    assert_eq!(uids_of(&pages), uids);
}

#[tokio::test]
async fn lists_come_in_the_order_that_was_asked_for_with_uids_as_tie_break() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create_many(&mut client, 60).await;
    for call in created.iter().step_by(7) {
        let patch = VoiceCall {
            uid: call.uid.clone(),
            duration: Some(1),
            ..VoiceCall::default()
        };
        update(&mut client, patch, &[]).await.expect("it is there");
    }
    let mut calls = Vec::new();
    for call in &created {
        calls.push(get(&mut client, &call.uid).await.expect("it is there"));
    }
    type Key = fn(&VoiceCall) -> (i64, Uuid);
    let by_creation: Key = |call| {
        let uid = Uuid::parse_str(&call.uid).expect("a UUID");
        (micros(call.created_at), uid)
    };
    let by_update: Key = |call| {
        let uid = Uuid::parse_str(&call.uid).expect("a UUID");
        (micros(call.updated_at), uid)
    };
    for (order_by, key, descending) in [
        ("", by_creation, true),
        ("created_at desc", by_creation, true),
        ("created_at", by_creation, false),
        ("updated_at desc", by_update, true),
        ("updated_at", by_update, false),
    ] {
        calls.sort_by_key(key);
        if descending {
            calls.reverse();
        }
        for page_size in [1, 7, 59, 60, 61] {
            let request = ListVoiceCallsRequest {
                order_by: order_by.into(),
                page_size,
                ..Default::default()
            };
            let pages = pages(&mut client, request).await;
            let listed: Vec<_> = pages
                .iter()
                .flat_map(|page| page.voice_calls.clone())
                .collect();
            assert_eq!(listed, calls, "{order_by:?}, {page_size}");
            let full = usize::try_from(page_size).expect("small");
            assert_eq!(
                pages.len(),
                calls.len().div_ceil(full),
                "{order_by:?}, {page_size}"
            );
        }
    }
}

#[tokio::test]
async fn a_page_has_50_calls_unless_asked_and_1000_at_most() {
    let server = Server::start().await;
    let mut client = server.client();
    create_many(&mut client, 1000).await;
    create_many(&mut client, 6).await;
    for (page_size, len) in [
        (0, 50),
        (1, 1),
        (49, 49),
        (1000, 1000),
        (1001, 1000),
        (i32::MAX, 1000),
    ] {
        let request = ListVoiceCallsRequest {
            page_size,
            ..Default::default()
        };
        let page = page(&mut client, &request).await.expect("a page");
        assert_eq!(page.voice_calls.len(), len);
        assert!(!page.next_page_token.is_empty());
        assert_eq!(page.revision, 1006);
    }
}

#[tokio::test]
async fn the_page_size_may_change_between_pages_and_tokens_are_url_safe() {
    let server = Server::start().await;
    let mut client = server.client();
    create_many(&mut client, 30).await;
    let mut request = ListVoiceCallsRequest {
        page_size: 1000,
        ..Default::default()
    };
    let whole = page(&mut client, &request).await.expect("a page");
    assert_eq!(whole.next_page_token, "");
    let mut listed = Vec::new();
    for page_size in [1, 2, 3, 4, 5, 6, 7, 8] {
        request.page_size = page_size;
        let page = page(&mut client, &request).await.expect("a page");
        listed.extend(page.voice_calls);
        let token = page.next_page_token;
        let safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(token.chars().all(safe), "{token}");
        request.page_token = token;
    }
    assert_eq!(request.page_token, "");
    assert_eq!(listed, whole.voice_calls);
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat_calls_when_others_come_and_go_between_them() {
    let server = Server::start().await;
    let mut client = server.client();
    let calls = create_many(&mut client, 30).await;
    let mut request = ListVoiceCallsRequest {
        page_size: 5,
        order_by: "created_at".into(),
        ..Default::default()
    };
    let first = page(&mut client, &request).await.expect("a page");
    request.page_token.clone_from(&first.next_page_token);
    // The last call of the page goes, and others come before and after it.
    delete(&mut client, &first.voice_calls[4].uid)
        .await
        .expect("there");
    for seconds in [0, 1_900_000_000 - 400_000_000] {
        let call = VoiceCall {
            created_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..inbound()
        };
        create(&mut client, call).await;
    }
    let rest = pages(&mut client, request).await;
    let listed = [uids_of(&[first]), uids_of(&rest)].concat();
    let mut expected = calls;
    expected.sort_by_key(|call| (micros(call.created_at), call.uid.clone()));
    let expected: Vec<_> = expected.into_iter().map(|call| call.uid).collect();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn deleted_calls_are_listed_only_on_request() {
    let server = Server::start().await;
    let mut client = server.client();
    let kept = create(&mut client, inbound()).await;
    let gone = create(&mut client, inbound()).await;
    delete(&mut client, &gone.uid).await.expect("it is there");
    for (show_deleted, expected) in [(false, vec![&kept.uid]), (true, vec![&gone.uid, &kept.uid])] {
        let request = ListVoiceCallsRequest {
            filter: Some(VoiceCallFilter {
                show_deleted,
                ..Default::default()
            }),
            ..Default::default()
        };
        let pages = pages(&mut client, request).await;
        assert_eq!(uids_of(&pages).iter().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn an_empty_list_has_the_revision_too() {
    let server = Server::start().await;
    let mut client = server.client();
    let request = ListVoiceCallsRequest::default();
    let empty = page(&mut client, &request).await.expect("a page");
    assert_eq!(empty, ListVoiceCallsResponse::default());
    let call = create(&mut client, inbound()).await;
    delete(&mut client, &call.uid).await.expect("it is there");
    let empty = page(&mut client, &request).await.expect("a page");
    let expected = ListVoiceCallsResponse {
        revision: 2,
        ..Default::default()
    };
    assert_eq!(empty, expected);
}

#[tokio::test]
async fn a_read_waits_for_its_min_revision_which_another_server_writes() {
    let writer = Server::start().await;
    let reader = Server::start_on(&writer.database_url, settings()).await;
    let mut client = reader.client();
    let uid = create(&mut writer.client(), reference()).await.uid;
    let waiting = tokio::spawn(async move {
        let request = GetVoiceCallRequest {
            uid,
            min_revision: 2,
        };
        client.get_voice_call(request).await
    });
    let updated = VoiceCall {
        duration: Some(4),
        ..reference()
    };
    let updated = update(&mut writer.client(), updated, &[]).await;
    let read = waiting.await.expect("no panic").expect("it comes");
    assert_eq!(read.into_inner().voice_call, updated.ok());
    let request = ListVoiceCallsRequest {
        min_revision: 2,
        ..Default::default()
    };
    let page = page(&mut reader.client(), &request)
        .await
        .expect("it is there");
    assert_eq!(page.revision, 2);
}

#[tokio::test]
async fn a_min_revision_that_does_not_come_is_refused_by_the_deadline() {
    let server = Server::start().await;
    create(&mut server.client(), reference()).await;
    let started = Instant::now();
    let [mut one, mut two, mut three] = [
        Raw::connect(&server.endpoint).await,
        Raw::connect(&server.endpoint).await,
        Raw::connect(&server.endpoint).await,
    ];
    let deadline = [("grpc-timeout", "1S")];
    let get = GetVoiceCallRequest {
        uid: reference().uid,
        min_revision: 2,
    };
    let batch_get = BatchGetVoiceCallsRequest {
        uids: vec![reference().uid],
        min_revision: 2,
    };
    let list = ListVoiceCallsRequest {
        min_revision: 2,
        ..Default::default()
    };
    let (get, batch_get, list) = tokio::join!(
        one.call("GetVoiceCall", &deadline, &get),
        two.call("BatchGetVoiceCalls", &deadline, &batch_get),
        three.call("ListVoiceCalls", &deadline, &list),
    );
    let statuses = [get.status, batch_get.status, list.status];
    for status in statuses {
        assert_eq!(metadata(&status)["current_revision"], "1");
        let result: Result<(), _> = Err(status);
        assert_refused(
            result,
            Code::FailedPrecondition,
            "REVISION_NOT_REACHED",
            &[],
        );
    }
    // Not after the five seconds that a wait without a deadline takes.
    assert!(started.elapsed() < Duration::from_secs(4));
}
