//! Exports are one state, however slowly they are read and whatever is written
//! meanwhile.

use std::collections::HashSet;

use tonic::Code;
use voicecall::proto::{
    BatchCreateVoiceCallsRequest, ExportVoiceCallsRequest, ExportVoiceCallsResponse, VoiceCall,
    VoiceCallFilter,
};

use crate::support::{
    Client, Server, assert_refused, create, delete, inbound, micros, reference, server::settings,
    update,
};

/// All chunks of an export.
async fn export(client: &mut Client, filter: VoiceCallFilter) -> Vec<ExportVoiceCallsResponse> {
    let request = ExportVoiceCallsRequest {
        filter: Some(filter),
        ..Default::default()
    };
    let stream = client.export_voice_calls(request).await;
    let mut stream = stream.expect("it begins").into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.message().await.expect("no error") {
        chunks.push(chunk);
    }
    chunks
}

async fn fill(client: &mut Client, count: i32) -> Vec<VoiceCall> {
    let mut calls = Vec::new();
    for thousand in 0..count / 1000 {
        let voice_calls = (0..1000)
            .map(|n| VoiceCall {
                duration: Some(thousand * 1000 + n),
                staff_uid: Some(format!("staff-{}", n % 3)),
                ..inbound()
            })
            .collect();
        let request = BatchCreateVoiceCallsRequest {
            voice_calls,
            ..Default::default()
        };
        let answer = client.batch_create_voice_calls(request).await;
        calls.extend(answer.expect("they are created").into_inner().voice_calls);
    }
    calls
}

fn sorted(mut calls: Vec<VoiceCall>) -> Vec<VoiceCall> {
    calls.sort_by_key(|call| (micros(call.created_at), call.uid.clone()));
    calls
}

#[tokio::test]
async fn an_export_of_nothing_is_one_empty_chunk() {
    let server = Server::start().await;
    let mut client = server.client();
    let chunks = export(&mut client, VoiceCallFilter::default()).await;
    assert_eq!(chunks, [ExportVoiceCallsResponse::default()]);
    let call = create(&mut client, reference()).await;
    delete(&mut client, &call.uid).await.expect("deleted");
    let chunks = export(&mut client, VoiceCallFilter::default()).await;
    let empty = ExportVoiceCallsResponse {
        revision: 2,
        ..Default::default()
    };
    assert_eq!(chunks, [empty]);
}

#[tokio::test]
async fn an_export_has_what_the_filter_matches_in_order() {
    let server = Server::start().await;
    let mut client = server.client();
    let calls = fill(&mut client, 3000).await;
    let deleted = delete(&mut client, &calls[7].uid).await.expect("deleted");
    for (filter, matches) in [
        (
            VoiceCallFilter::default(),
            (|call: &VoiceCall| call.deleted_at.is_none()) as fn(&_) -> _,
        ),
        (
            VoiceCallFilter {
                show_deleted: true,
                ..Default::default()
            },
            |_| true,
        ),
        (
            VoiceCallFilter {
                staff_uids: vec!["staff-2".into()],
                max_duration: Some(1500),
                ..Default::default()
            },
            |call| call.staff_uid.as_deref() == Some("staff-2") && call.duration <= Some(1500),
        ),
    ] {
        let mut all = calls.clone();
        all[7] = deleted.clone();
        all.retain(matches);
        let chunks = export(&mut client, filter).await;
        assert!(chunks.iter().all(|chunk| chunk.revision == 3001));
        let exported: Vec<_> = chunks
            .into_iter()
            .flat_map(|chunk| chunk.voice_calls)
            .collect();
        assert_eq!(exported, sorted(all));
    }
}

#[tokio::test]
async fn what_changes_meanwhile_is_not_in_it() {
    let server = Server::start().await;
    let mut client = server.client();
    let calls = fill(&mut client, 20_000).await;
    let stream = client
        .export_voice_calls(ExportVoiceCallsRequest::default())
        .await;
    let mut stream = stream.expect("it begins").into_inner();
    let first = stream.message().await.expect("no error").expect("a chunk");
    assert_eq!(first.revision, 20_000);
    // More than any buffer between us holds is still to come.
    for call in calls.iter().step_by(97) {
        let changed = VoiceCall {
            call_summary: Some("later".into()),
            ..call.clone()
        };
        update(&mut client, changed, &["call_summary"])
            .await
            .expect("updated");
    }
    for call in calls.iter().skip(1).step_by(301) {
        delete(&mut client, &call.uid).await.expect("deleted");
    }
    let early = VoiceCall {
        created_at: calls[10_000].created_at,
        ..inbound()
    };
    create(&mut client, early).await;
    let mut exported = first.voice_calls;
    while let Some(chunk) = stream.message().await.expect("no error") {
        assert_eq!(chunk.revision, 20_000);
        exported.extend(chunk.voice_calls);
    }
    assert_eq!(exported, sorted(calls));
}

#[tokio::test]
async fn large_calls_come_in_messages_that_every_client_takes() {
    let server = Server::start().await;
    let mut client = server.client();
    for _ in 0..100 {
        let call = VoiceCall {
            call_summary: Some("x".repeat(65_536)),
            ..inbound()
        };
        create(&mut client, call).await;
    }
    let chunks = export(&mut client, VoiceCallFilter::default()).await;
    assert!(chunks.len() >= 4, "{} chunks", chunks.len());
    let uids: HashSet<_> = chunks
        .iter()
        .flat_map(|chunk| &chunk.voice_calls)
        .map(|call| &call.uid)
        .collect();
    assert_eq!(uids.len(), 100);
    for chunk in &chunks {
        assert!(prost::Message::encoded_len(chunk) <= 2 * 1024 * 1024);
    }
}

#[tokio::test]
async fn bad_arguments_and_too_many_are_refused() {
    let mut settings = settings();
    settings.api.max_transfers = 1;
    let server = Server::start_with(settings).await;
    let mut client = server.client();
    let request = ExportVoiceCallsRequest {
        filter: Some(VoiceCallFilter {
            uids: vec!["x".into()],
            ..Default::default()
        }),
        min_revision: -1,
    };
    assert_refused(
        client.export_voice_calls(request).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &["filter.uids[0]", "min_revision"],
    );
    fill(&mut client, 20_000).await;
    let open = client
        .export_voice_calls(ExportVoiceCallsRequest::default())
        .await;
    let open = open.expect("it begins");
    let second = client
        .export_voice_calls(ExportVoiceCallsRequest::default())
        .await;
    assert_refused(second, Code::ResourceExhausted, "OVERLOADED", &[]);
    let import = client
        .import_voice_calls(futures_util::stream::empty())
        .await;
    assert_refused(import, Code::ResourceExhausted, "OVERLOADED", &[]);
    drop(open);
    crate::support::eventually("there is a free place again", async || {
        let again = client
            .export_voice_calls(ExportVoiceCallsRequest::default())
            .await;
        again.is_ok()
    })
    .await;
}
