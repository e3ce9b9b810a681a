//! Whatever is wrong with a request: it gets its code, its reason and the list
//! of what is wrong, nothing is written, and the connection lives on.

use prost_types::Timestamp;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use voicecall::proto::{self, VoiceCall, VoiceCallFilter};

use crate::support::{
    Client, Server, assert_refused,
    bad_values::{BAD_UIDS, bad_fields},
    create, get, inbound, mask, postgres, reference, request_id,
};

/// A server with one call, and the means to see that it stays as it is.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    client: Client,
    database: tokio_postgres::Client,
    before: postgres::Contents,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
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

    pub(crate) async fn assert_untouched(&mut self) {
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
