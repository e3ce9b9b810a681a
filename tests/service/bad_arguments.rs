//! Bad arguments besides the call's own fields: filters, orders, pages, request
//! ids and revisions.

use prost_types::Timestamp;
use tonic::Code;
use voicecall::proto::{
    self, CreateVoiceCallRequest, DeleteVoiceCallRequest, GetVoiceCallRequest,
    HandleVoiceCallRequest, ListVoiceCallsRequest, UndeleteVoiceCallRequest,
    UpdateVoiceCallRequest, VoiceCall, VoiceCallFilter,
};

use crate::support::{
    Server, assert_refused, create, inbound,
    postgres::{connect, contents},
    reference,
};

#[tokio::test]
async fn filters_that_cannot_be_meant_are_refused_by_path() {
    let server = Server::start().await;
    let mut client = server.client();
    let out_of_range = Some(Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    });
    let text = |text: &str| vec!["a".to_owned(), text.to_owned()];
    let default = VoiceCallFilter::default;
    let cases: Vec<(VoiceCallFilter, &[&str])> = vec![
        (
            VoiceCallFilter {
                staff_uids: text(""),
                ..default()
            },
            &["filter.staff_uids[1]"],
        ),
        (
            VoiceCallFilter {
                client_uids: text("\0"),
                ..default()
            },
            &["filter.client_uids[1]"],
        ),
        (
            VoiceCallFilter {
                handled_by_staff_uids: text(&"a".repeat(65)),
                ..default()
            },
            &["filter.handled_by_staff_uids[1]"],
        ),
        (
            VoiceCallFilter {
                numbers: text("\n"),
                ..default()
            },
            &["filter.numbers[1]"],
        ),
        (
            VoiceCallFilter {
                from_numbers: text(""),
                ..default()
            },
            &["filter.from_numbers[1]"],
        ),
        (
            VoiceCallFilter {
                to_numbers: text(""),
                ..default()
            },
            &["filter.to_numbers[1]"],
        ),
        (
            VoiceCallFilter {
                statuses: vec![0, 1, 9],
                ..default()
            },
            &["filter.statuses[0]", "filter.statuses[2]"],
        ),
        (
            VoiceCallFilter {
                directions: vec![1, 0, -1],
                ..default()
            },
            &["filter.directions[1]", "filter.directions[2]"],
        ),
        (
            VoiceCallFilter {
                created_after: out_of_range,
                ..default()
            },
            &["filter.created_after"],
        ),
        (
            VoiceCallFilter {
                created_before: out_of_range,
                ..default()
            },
            &["filter.created_before"],
        ),
        (
            VoiceCallFilter {
                updated_after: out_of_range,
                ..default()
            },
            &["filter.updated_after"],
        ),
        (
            VoiceCallFilter {
                updated_before: out_of_range,
                ..default()
            },
            &["filter.updated_before"],
        ),
        (
            VoiceCallFilter {
                min_duration: Some(-1),
                ..default()
            },
            &["filter.min_duration"],
        ),
        (
            VoiceCallFilter {
                max_duration: Some(-1),
                ..default()
            },
            &["filter.max_duration"],
        ),
        (
            VoiceCallFilter {
                staff_uids: vec!["a".into(); 1001],
                ..default()
            },
            &["filter.staff_uids"],
        ),
        (
            VoiceCallFilter {
                statuses: vec![1; 1001],
                ..default()
            },
            &["filter.statuses"],
        ),
    ];
    for (filter, paths) in cases {
        let request = ListVoiceCallsRequest {
            filter: Some(filter),
            ..Default::default()
        };
        let result = client.list_voice_calls(request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", paths);
    }
    let most = VoiceCallFilter {
        staff_uids: vec!["a".into(); 1000],
        ..default()
    };
    let request = ListVoiceCallsRequest {
        filter: Some(most),
        ..Default::default()
    };
    client
        .list_voice_calls(request)
        .await
        .expect("1000 are fine");
}

#[tokio::test]
async fn orders_pages_and_revisions_that_are_none_are_refused_by_path() {
    let server = Server::start().await;
    let mut client = server.client();
    for order_by in [
        "uid",
        "created_at asc",
        "created_at DESC",
        "desc",
        "created_at, uid",
        "created_at desc desc",
        "duration",
        "\0",
    ] {
        let request = ListVoiceCallsRequest {
            order_by: order_by.into(),
            ..Default::default()
        };
        let result = client.list_voice_calls(request).await;
        assert_refused(
            result,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &["order_by"],
        );
    }
    let request = ListVoiceCallsRequest {
        page_size: -1,
        min_revision: -1,
        order_by: "x".into(),
        ..Default::default()
    };
    let result = client.list_voice_calls(request).await;
    let paths = ["order_by", "page_size", "min_revision"];
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &paths);
    let request = GetVoiceCallRequest {
        uid: reference().uid,
        min_revision: -1,
    };
    let result = client.get_voice_call(request).await;
    assert_refused(
        result,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &["min_revision"],
    );
    let request = proto::BatchGetVoiceCallsRequest {
        uids: vec![reference().uid],
        min_revision: -1,
    };
    let result = client.batch_get_voice_calls(request).await;
    assert_refused(
        result,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &["min_revision"],
    );
}

#[tokio::test]
async fn request_ids_and_expected_revisions_that_are_none_are_refused_by_path() {
    let server = Server::start().await;
    let mut client = server.client();
    create(&mut client, reference()).await;
    let database = connect(&server.database_url).await;
    let before = contents(&database).await;
    let uid = reference().uid;
    let bad = || "no uuid".to_owned();

    let request = CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        request_id: bad(),
        ..Default::default()
    };
    let result = client.create_voice_call(request).await;
    assert_refused(
        result,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &["request_id"],
    );
    let request = proto::BatchCreateVoiceCallsRequest {
        voice_calls: vec![inbound()],
        request_id: bad(),
    };
    let result = client.batch_create_voice_calls(request).await;
    assert_refused(
        result,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &["request_id"],
    );
    let request = UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            duration: Some(9),
            ..reference()
        }),
        request_id: bad(),
        expected_revision: -1,
        ..Default::default()
    };
    let result = client.update_voice_call(request).await;
    let paths = ["request_id", "expected_revision"];
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &paths);
    let request = HandleVoiceCallRequest {
        uid: uid.clone(),
        request_id: bad(),
        expected_revision: -1,
        handled_at: Some(Timestamp {
            seconds: 0,
            nanos: -1,
        }),
        ..Default::default()
    };
    let result = client.handle_voice_call(request).await;
    let paths = [
        "request_id",
        "handled_by_staff_uid",
        "handled_at",
        "expected_revision",
    ];
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &paths);
    let request = DeleteVoiceCallRequest {
        uid: uid.clone(),
        request_id: bad(),
        expected_revision: -1,
        allow_missing: true,
    };
    let result = client.delete_voice_call(request).await;
    let paths = ["request_id", "expected_revision"];
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &paths);
    let request = UndeleteVoiceCallRequest {
        uid,
        request_id: bad(),
        expected_revision: -1,
    };
    let result = client.undelete_voice_call(request).await;
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &paths);
    assert_eq!(contents(&database).await, before);
}
