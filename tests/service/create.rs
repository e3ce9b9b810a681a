//! CreateVoiceCall and BatchCreateVoiceCalls.

use tonic::{Code, Status};
use uuid::Uuid;
use voicecall::proto::{
    self, BatchCreateVoiceCallsRequest, CreateVoiceCallRequest, VoiceCall, VoiceCallDirection,
    VoiceCallStatus,
};

use crate::support::{
    Client, Server, assert_refused, create, get, inbound, metadata,
    postgres::{connect, contents},
    reference,
    server::settings,
};

async fn create_batch(
    client: &mut Client,
    voice_calls: Vec<VoiceCall>,
) -> Result<Vec<VoiceCall>, Status> {
    let request = BatchCreateVoiceCallsRequest {
        voice_calls,
        ..Default::default()
    };
    let response = client.batch_create_voice_calls(request).await?;
    Ok(response.into_inner().voice_calls)
}

async fn validate(client: &mut Client, voice_call: VoiceCall) -> Result<VoiceCall, Status> {
    let request = CreateVoiceCallRequest {
        voice_call: Some(voice_call),
        validate_only: true,
        ..Default::default()
    };
    let response = client.create_voice_call(request).await?;
    Ok(response.into_inner().voice_call.expect("it is answered"))
}

#[tokio::test]
async fn the_reference_example_comes_back_value_for_value() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    let expected = VoiceCall {
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
async fn the_least_call_gets_a_uuid_v7_the_open_status_and_the_present_time() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, inbound()).await;
    let uid = Uuid::parse_str(&created.uid).expect("a UUID");
    assert_eq!(uid.get_version_num(), 7);
    assert_eq!(created.uid, uid.to_string());
    let expected = VoiceCall {
        uid: created.uid.clone(),
        created_at: created.created_at,
        updated_at: created.created_at,
        status: VoiceCallStatus::IncomingCall.into(),
        direction: VoiceCallDirection::Inbound.into(),
        revision: 1,
        ..VoiceCall::default()
    };
    assert!(created.created_at.is_some());
    assert_eq!(created, expected);
    assert_eq!(
        get(&mut client, &created.uid).await.expect("it is there"),
        expected
    );
}

#[tokio::test]
async fn a_client_may_choose_any_uuid_in_any_letter_case() {
    let server = Server::start().await;
    let mut client = server.client();
    for uid in [
        "A0B1C2D3-E4F5-1678-9ABC-DEF012345678",
        "a0b1c2d3-e4f5-4678-9abc-def012345678",
        "A0b1C2d3-E4f5-7678-9aBC-dEF012345678",
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    ] {
        let call = VoiceCall {
            uid: uid.into(),
            ..inbound()
        };
        let created = create(&mut client, call).await;
        assert_eq!(created.uid, uid.to_lowercase());
        assert_eq!(get(&mut client, uid).await.expect("it is there"), created);
    }
}

#[tokio::test]
async fn a_taken_uid_is_refused_in_any_letter_case() {
    let server = Server::start().await;
    let mut client = server.client();
    create(&mut client, reference()).await;
    let request = CreateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: reference().uid.to_uppercase(),
            ..inbound()
        }),
        ..Default::default()
    };
    let result = client.create_voice_call(request).await;
    let status = result.as_ref().expect_err("it is taken");
    assert_eq!(metadata(status)["uid"], reference().uid);
    assert_refused(result, Code::AlreadyExists, "CALL_ALREADY_EXISTS", &[]);
}

#[tokio::test]
async fn of_racing_creates_of_one_uid_on_two_servers_one_succeeds() {
    let servers = two_servers().await;
    let attempts = (0..20).map(|place| {
        let mut client = servers[place % 2].client();
        tokio::spawn(async move {
            let request = CreateVoiceCallRequest {
                voice_call: Some(reference()),
                ..Default::default()
            };
            client.create_voice_call(request).await
        })
    });
    let attempts: Vec<_> = attempts.collect();
    let mut created = 0;
    for attempt in attempts {
        match attempt.await.expect("no panic") {
            Ok(_) => created += 1,
            Err(status) => assert_eq!(status.code(), Code::AlreadyExists),
        }
    }
    assert_eq!(created, 1);
}

async fn two_servers() -> [Server; 2] {
    let first = Server::start().await;
    let second = Server::start_on(&first.database_url, settings()).await;
    [first, second]
}

#[tokio::test]
async fn what_the_server_writes_is_ignored_in_a_request() {
    let server = Server::start().await;
    let mut client = server.client();
    let call = VoiceCall {
        updated_at: reference().created_at,
        deleted_at: reference().created_at,
        revision: 77,
        ..inbound()
    };
    let created = create(&mut client, call).await;
    assert_eq!(created.deleted_at, None);
    assert_eq!(created.revision, 1);
    assert_ne!(created.updated_at, reference().created_at);
}

#[tokio::test]
async fn every_status_may_be_given_with_either_direction() {
    let server = Server::start().await;
    let mut client = server.client();
    for status in 1..=4 {
        for direction in 1..=2 {
            let call = VoiceCall {
                status,
                direction,
                ..VoiceCall::default()
            };
            let created = create(&mut client, call).await;
            assert_eq!((created.status, created.direction), (status, direction));
        }
    }
}

#[tokio::test]
async fn the_largest_values_are_kept_and_empty_strings_are_absent() {
    let server = Server::start().await;
    let mut client = server.client();
    let url = format!("https://example.com/{}", "a".repeat(2028));
    let name = Some("😀".repeat(64));
    let largest = VoiceCall {
        duration: Some(i32::MAX),
        staff_uid: name.clone(),
        client_uid: name.clone(),
        from_number: name.clone(),
        to_number: name.clone(),
        recording_url: Some(url.clone()),
        call_summary: Some(format!("{}\n\tü", "a".repeat(65_532))),
        external_app_url: Some(url),
        handled_by_staff_uid: name,
        ..inbound()
    };
    let created = create(&mut client, largest.clone()).await;
    let expected = VoiceCall {
        uid: created.uid.clone(),
        created_at: created.created_at,
        updated_at: created.updated_at,
        status: created.status,
        revision: created.revision,
        ..largest
    };
    assert_eq!(created, expected);
    assert_eq!(
        get(&mut client, &created.uid).await.expect("it is there"),
        expected
    );

    let empty = Some(String::new());
    let call = VoiceCall {
        duration: Some(0),
        staff_uid: empty.clone(),
        client_uid: empty.clone(),
        from_number: empty.clone(),
        to_number: empty.clone(),
        recording_url: empty.clone(),
        call_summary: empty.clone(),
        external_app_url: empty.clone(),
        handled_by_staff_uid: empty,
        ..inbound()
    };
    let created = create(&mut client, call).await;
    assert_eq!(created.duration, Some(0));
    assert_absent_texts(&created);
    assert_absent_texts(&get(&mut client, &created.uid).await.expect("it is there"));
}

fn assert_absent_texts(call: &VoiceCall) {
    let texts = [
        &call.staff_uid,
        &call.client_uid,
        &call.from_number,
        &call.to_number,
        &call.recording_url,
        &call.call_summary,
        &call.external_app_url,
        &call.handled_by_staff_uid,
    ];
    assert!(texts.iter().all(|text| text.is_none()), "{call:?}");
}

#[tokio::test]
async fn validate_only_answers_what_would_be_and_writes_nothing() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let before = contents(&database).await;

    let tried = validate(&mut client, inbound()).await.expect("it is fine");
    assert_eq!((tried.uid.as_str(), tried.revision), ("", 0));
    assert!(tried.updated_at.is_some());
    let tried = validate(&mut client, reference())
        .await
        .expect("it is fine");
    assert_eq!(tried.uid, reference().uid);
    assert_eq!(contents(&database).await, before);

    create(&mut client, reference()).await;
    let before = contents(&database).await;
    let taken = validate(&mut client, reference()).await;
    assert_refused(taken, Code::AlreadyExists, "CALL_ALREADY_EXISTS", &[]);
    let bad = VoiceCall {
        duration: Some(-1),
        ..VoiceCall::default()
    };
    let bad = validate(&mut client, bad).await;
    assert_refused(
        bad,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &["voice_call.direction", "voice_call.duration"],
    );
    assert_eq!(contents(&database).await, before);
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order_with_revisions_that_follow_one_another() {
    let server = Server::start().await;
    let mut client = server.client();
    create(&mut client, inbound()).await;
    let calls: Vec<VoiceCall> = (0..1000)
        .map(|place| VoiceCall {
            uid: if place % 2 == 0 {
                String::new()
            } else {
                Uuid::new_v4().to_string()
            },
            staff_uid: Some(format!("staff {place}")),
            ..inbound()
        })
        .collect();
    let created = create_batch(&mut client, calls.clone()).await;
    let created = created.expect("it is created");
    assert_eq!(created.len(), 1000);
    for (place, (created, call)) in created.iter().zip(&calls).enumerate() {
        assert_eq!(created.staff_uid, call.staff_uid);
        assert_eq!(created.revision, i64::try_from(place).expect("small") + 2);
        assert!(call.uid.is_empty() || call.uid == created.uid);
    }
    let one = get(&mut client, &created[999].uid).await;
    assert_eq!(one.expect("it is there"), created[999]);
}

#[tokio::test]
async fn a_batch_with_a_taken_uid_creates_nothing() {
    let server = Server::start().await;
    let mut client = server.client();
    create(&mut client, reference()).await;
    let database = connect(&server.database_url).await;
    let before = contents(&database).await;
    let result = create_batch(&mut client, vec![inbound(), reference(), inbound()]).await;
    let status = result.as_ref().expect_err("one is taken");
    assert_eq!(metadata(status)["uid"], reference().uid);
    assert_refused(result, Code::AlreadyExists, "CALL_ALREADY_EXISTS", &[]);
    assert_eq!(contents(&database).await, before);
}

#[tokio::test]
async fn a_batch_whose_answer_would_be_over_2_mib_is_refused_as_a_whole() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let call = VoiceCall {
        call_summary: Some("a".repeat(65_536)),
        ..inbound()
    };
    let result = create_batch(&mut client, vec![call.clone(); 32]).await;
    assert_refused(result, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", &[]);
    assert_eq!(contents(&database).await.head, 0);
    let created = create_batch(&mut client, vec![call; 30]).await;
    assert_eq!(created.expect("it fits").len(), 30);
}

#[tokio::test]
async fn calls_with_times_of_every_age_keep_them() {
    let server = Server::start().await;
    let mut client = server.client();
    for seconds in [-62_135_596_800, -1, 0, 951_782_400, 1_626_789_600] {
        let time = prost_types::Timestamp {
            seconds,
            nanos: 123_456_000,
        };
        let call = VoiceCall {
            created_at: Some(time),
            handled_at: Some(time),
            ..inbound()
        };
        let created = create(&mut client, call).await;
        let read = get(&mut client, &created.uid).await.expect("it is there");
        assert_eq!(created.created_at, Some(time));
        assert_eq!(created.handled_at, Some(time));
        assert_eq!(read, created);
    }
    let last = prost_types::Timestamp {
        seconds: 253_402_300_799,
        nanos: 999_999_000,
    };
    let call = proto::VoiceCall {
        handled_at: Some(last),
        ..inbound()
    };
    assert_eq!(create(&mut client, call).await.handled_at, Some(last));
}
