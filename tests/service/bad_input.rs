//! Whatever is wrong with a request: it gets its code, its reason and the list
//! of what is wrong, nothing is written, and the connection lives on.

use prost_types::Timestamp;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use voicecall::api::proto::{self, VoiceCall, VoiceCallFilter};

use crate::support::{
    Client, Server, assert_refused, create, get, inbound, mask, postgres,
    raw::{Raw, frame},
    reference, request_id,
};

/// A server with one call, and the means to see that it stays as it is.
struct Fixture {
    server: Server,
    client: Client,
    database: tokio_postgres::Client,
    before: postgres::Contents,
}

impl Fixture {
    async fn new() -> Self {
        let server = Server::start().await;
        let mut client = server.client();
        create(&mut client, reference()).await;
        let database = postgres::connect(&server.database_url).await;
        let before = postgres::contents(&database).await;
        Self {
            server,
            client,
            database,
            before,
        }
    }

    async fn assert_untouched(&mut self) {
        assert_eq!(postgres::contents(&self.database).await, self.before);
        let call = get(&mut self.client, &reference().uid).await;
        assert_eq!(call.expect("it is there").revision, 1);
    }

    /// Each of these is INVALID_FIELD at these paths.
    async fn assert_each_refused<R>(
        &mut self,
        cases: Vec<(R, &[&str])>,
        mut send: impl AsyncFnMut(&mut Client, R) -> Result<(), Status>,
    ) where
        R: std::fmt::Debug + Clone,
    {
        for (request, paths) in cases {
            let result = send(&mut self.client, request.clone()).await;
            let shown: String = format!("{request:?}").chars().take(300).collect();
            assert!(result.is_err(), "accepted: {shown}");
            assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", paths);
        }
        self.assert_untouched().await;
    }
}

/// Every field of a call that can be bad, and the path of it.
fn bad_fields() -> Vec<(VoiceCall, &'static str)> {
    fn with(set: impl FnOnce(&mut VoiceCall)) -> VoiceCall {
        let mut call = inbound();
        set(&mut call);
        call
    }
    type Place = fn(&mut VoiceCall) -> &mut Option<String>;
    let names: [(&str, Place); 5] = [
        ("staff_uid", |call| &mut call.staff_uid),
        ("client_uid", |call| &mut call.client_uid),
        ("from_number", |call| &mut call.from_number),
        ("to_number", |call| &mut call.to_number),
        ("handled_by_staff_uid", |call| {
            &mut call.handled_by_staff_uid
        }),
    ];
    let urls: [(&str, Place); 2] = [
        ("recording_url", |call| &mut call.recording_url),
        ("external_app_url", |call| &mut call.external_app_url),
    ];
    let mut cases = Vec::new();
    for (path, place) in names {
        for bad in [
            &"a".repeat(65),
            &"ü".repeat(65),
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a\u{9f}",
        ] {
            cases.push((with(|call| *place(call) = Some(bad.into())), path));
        }
    }
    for (path, place) in urls {
        let long = format!("https://example.com/{}", "a".repeat(2029));
        for bad in [
            "example.com/a",
            "/a",
            "ftp://example.com/a",
            "https://",
            "https://exa mple.com/",
            "javascript:alert(1)",
            "https://example.com/\0",
            "https://example.com/\n",
            &long,
        ] {
            cases.push((with(|call| *place(call) = Some(bad.into())), path));
        }
    }
    for bad in [&"a".repeat(65_537), "a\0b", "a\rb", "a\u{1b}[0m"] {
        cases.push((
            with(|call| call.call_summary = Some(bad.into())),
            "call_summary",
        ));
    }
    for bad in [-1, i32::MIN] {
        cases.push((with(|call| call.duration = Some(bad)), "duration"));
    }
    for bad in [5, -1, i32::MAX] {
        cases.push((with(|call| call.status = bad), "status"));
    }
    for bad in [3, -1] {
        cases.push((with(|call| call.direction = bad), "direction"));
    }
    for (seconds, nanos) in [
        (0, -1),
        (0, 1_000_000_000),
        (-62_135_596_801, 0),
        (253_402_300_800, 0),
        (i64::MAX, 0),
        (i64::MIN, 0),
    ] {
        let time = Some(Timestamp { seconds, nanos });
        cases.push((with(|call| call.handled_at = time), "handled_at"));
        cases.push((with(|call| call.created_at = time), "created_at"));
    }
    cases
}

const BAD_UIDS: [&str; 8] = [
    "1",
    "not-a-uuid",
    "d290f1ee-6c54-4b01-90e6-d701748f085",
    "d290f1ee-6c54-4b01-90e6-d701748f08511",
    "d290f1ee6c544b0190e6d701748f0851",
    "{d290f1ee-6c54-4b01-90e6-d701748f0851}",
    "d290f1ee-6c54-4b01-90e6-d701748f085\0",
    "ü290f1ee-6c54-4b01-90e6-d701748f085",
];

#[tokio::test]
async fn bad_fields_are_refused_by_their_path_at_create_and_in_a_batch() {
    let mut fixture = Fixture::new().await;
    let mut fields = bad_fields();
    for uid in BAD_UIDS {
        let call = VoiceCall {
            uid: uid.into(),
            ..inbound()
        };
        fields.push((call, "uid"));
    }
    fields.push((VoiceCall::default(), "direction"));
    for (call, field) in fields {
        let request = proto::CreateVoiceCallRequest {
            voice_call: Some(call.clone()),
            request_id: request_id(),
            validate_only: false,
        };
        let result = fixture.client.create_voice_call(request).await;
        let path = format!("voice_call.{field}");
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &[&path]);
        let request = proto::BatchCreateVoiceCallsRequest {
            voice_calls: vec![inbound(), call],
            request_id: request_id(),
        };
        let result = fixture.client.batch_create_voice_calls(request).await;
        let path = format!("voice_calls[1].{field}");
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &[&path]);
    }
    fixture.assert_untouched().await;
}

#[tokio::test]
async fn bad_fields_are_refused_by_their_path_in_an_update() {
    let mut fixture = Fixture::new().await;
    for (call, field) in bad_fields() {
        // An update reads created_at only when it may create.
        let request = proto::UpdateVoiceCallRequest {
            allow_missing: field == "created_at",
            voice_call: Some(VoiceCall {
                uid: reference().uid,
                ..call
            }),
            request_id: request_id(),
            ..Default::default()
        };
        let result = fixture.client.update_voice_call(request).await;
        let path = format!("voice_call.{field}");
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &[&path]);
    }
    fixture.assert_untouched().await;
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once() {
    let mut fixture = Fixture::new().await;
    let request = proto::CreateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: "1".into(),
            duration: Some(-1),
            status: 99,
            from_number: Some("a\0".into()),
            recording_url: Some("nowhere".into()),
            handled_at: Some(Timestamp {
                seconds: 0,
                nanos: -1,
            }),
            ..VoiceCall::default()
        }),
        request_id: "2".into(),
        validate_only: false,
    };
    let result = fixture.client.create_voice_call(request).await;
    let status = result.as_ref().expect_err("nothing about it is right");
    let (code, reason, mut paths) = crate::support::facts(status);
    paths.sort();
    assert_eq!(
        (code, reason.as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    let expected = [
        "request_id",
        "voice_call.direction",
        "voice_call.duration",
        "voice_call.from_number",
        "voice_call.handled_at",
        "voice_call.recording_url",
        "voice_call.status",
        "voice_call.uid",
    ];
    assert_eq!(paths, expected);
    assert!(
        !format!("{status:?}").contains("nowhere"),
        "no content of the call"
    );
    fixture.assert_untouched().await;
}

#[tokio::test]
async fn what_is_wrong_beyond_4_kib_is_counted_so_that_clients_can_take_the_answer() {
    let mut fixture = Fixture::new().await;
    let request = proto::BatchCreateVoiceCallsRequest {
        voice_calls: vec![VoiceCall::default(); 1000],
        ..Default::default()
    };
    let result = fixture.client.batch_create_voice_calls(request).await;
    let status = result.expect_err("no call has a direction");
    let (code, reason, paths) = crate::support::facts(&status);
    assert_eq!(
        (code, reason.as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    assert_eq!(paths[0], "voice_calls[0].direction");
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("there are").field_violations;
    let listed = violations.len() - 1;
    assert_eq!(violations[listed].field, "");
    assert_eq!(
        violations[listed].description,
        format!("{} more", 1000 - listed)
    );
    fixture.assert_untouched().await;
}

#[tokio::test]
async fn uids_that_are_none_are_refused_everywhere() {
    let mut fixture = Fixture::new().await;
    let bad = || BAD_UIDS.into_iter().chain([""]);
    macro_rules! refused {
        ($method:ident, $request:ident { $($field:ident: $value:expr),* }, $paths:expr) => {{
            let cases = bad().map(|uid: &str| (proto::$request {
                $($field: $value(uid),)*
                ..Default::default()
            }, $paths as &[&str]));
            fixture.assert_each_refused(cases.collect(), async |client, request| {
                client.$method(request).await.map(drop)
            }).await;
        }};
    }
    let text = |uid: &str| uid.to_owned();
    let staff = |_: &str| "ann".to_owned();
    refused!(get_voice_call, GetVoiceCallRequest { uid: text }, &["uid"]);
    refused!(
        delete_voice_call,
        DeleteVoiceCallRequest { uid: text },
        &["uid"]
    );
    refused!(
        undelete_voice_call,
        UndeleteVoiceCallRequest { uid: text },
        &["uid"]
    );
    refused!(
        handle_voice_call,
        HandleVoiceCallRequest {
            uid: text,
            handled_by_staff_uid: staff
        },
        &["uid"]
    );
    let call = |uid: &str| {
        Some(VoiceCall {
            uid: uid.into(),
            ..inbound()
        })
    };
    refused!(
        update_voice_call,
        UpdateVoiceCallRequest { voice_call: call },
        &["voice_call.uid"]
    );
    let uids = |uid: &str| vec![reference().uid, uid.to_owned()];
    refused!(
        batch_get_voice_calls,
        BatchGetVoiceCallsRequest { uids: uids },
        &["uids[1]"]
    );
    let filter = |uid: &str| {
        Some(VoiceCallFilter {
            uids: vec![uid.into()],
            ..Default::default()
        })
    };
    refused!(
        list_voice_calls,
        ListVoiceCallsRequest { filter: filter },
        &["filter.uids[0]"]
    );
}

#[tokio::test]
async fn masks_that_name_no_field_of_the_clients_are_refused() {
    let mut fixture = Fixture::new().await;
    let masks: Vec<(&[&str], &[&str])> = vec![
        (&["nothing"], &["update_mask.paths[0]"]),
        (&["voice_call.duration"], &["update_mask.paths[0]"]),
        (&["Duration"], &["update_mask.paths[0]"]),
        (&[""], &["update_mask.paths[0]"]),
        (&["duration", "uid"], &["update_mask.paths[1]"]),
        (&["created_at"], &["update_mask.paths[0]"]),
        (&["updated_at"], &["update_mask.paths[0]"]),
        (&["deleted_at"], &["update_mask.paths[0]"]),
        (
            &["revision", "x"],
            &["update_mask.paths[0]", "update_mask.paths[1]"],
        ),
        (&["*", "duration"], &["update_mask"]),
        (&["duration", "*"], &["update_mask"]),
        (&["*", "*"], &["update_mask"]),
    ];
    let cases = masks.into_iter().map(|(paths, violations)| {
        let request = proto::UpdateVoiceCallRequest {
            voice_call: Some(reference()),
            update_mask: mask(paths),
            ..Default::default()
        };
        (request, violations)
    });
    let unset = |path| proto::UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: reference().uid,
            ..Default::default()
        }),
        update_mask: mask(&[path]),
        ..Default::default()
    };
    let more: [(_, &[&str]); 3] = [
        (unset("status"), &["voice_call.status"]),
        (unset("direction"), &["voice_call.direction"]),
        (proto::UpdateVoiceCallRequest::default(), &["voice_call"]),
    ];
    let send =
        async |client: &mut Client, request| client.update_voice_call(request).await.map(drop);
    fixture
        .assert_each_refused(cases.chain(more).collect(), send)
        .await;
}

#[tokio::test]
async fn batches_have_1_to_1000_items_and_no_uid_twice() {
    let mut fixture = Fixture::new().await;
    let one = |uid: &str| VoiceCall {
        uid: uid.into(),
        ..inbound()
    };
    let a = "AAAAAAAA-6c54-4b01-90e6-d701748f0851";
    let creates = |voice_calls| proto::BatchCreateVoiceCallsRequest {
        voice_calls,
        request_id: request_id(),
    };
    let cases: Vec<(_, &[&str])> = vec![
        (creates(vec![]), &["voice_calls"]),
        (creates(vec![inbound(); 1001]), &["voice_calls"]),
        (
            creates(vec![one(a), inbound(), one(&a.to_lowercase()), one(a)]),
            &["voice_calls[2].uid", "voice_calls[3].uid"],
        ),
    ];
    let send = async |client: &mut Client, request| {
        client.batch_create_voice_calls(request).await.map(drop)
    };
    fixture.assert_each_refused(cases, send).await;

    let gets = |uids| proto::BatchGetVoiceCallsRequest {
        uids,
        ..Default::default()
    };
    let many = (0..1001).map(|_| request_id()).collect();
    let cases: Vec<(_, &[&str])> = vec![
        (gets(vec![]), &["uids"]),
        (gets(many), &["uids"]),
        (gets(vec![a.into(), a.to_lowercase()]), &["uids[1]"]),
    ];
    let send =
        async |client: &mut Client, request| client.batch_get_voice_calls(request).await.map(drop);
    fixture.assert_each_refused(cases, send).await;
}

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
