//! What the tests share.

pub(crate) mod ledger;
pub(crate) mod postgres;
pub(crate) mod secured;
pub(crate) mod server;

use prost_types::Timestamp;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use voicecall::api::proto::{self, VoiceCall, VoiceCallDirection, VoiceCallStatus};

pub(crate) use server::{Client, Server};

/// The least that can be created: an inbound call.
pub(crate) fn inbound() -> VoiceCall {
    VoiceCall {
        direction: VoiceCallDirection::Inbound.into(),
        ..VoiceCall::default()
    }
}

/// The reference object's example.
pub(crate) fn reference() -> VoiceCall {
    let uid = "d290f1ee-6c54-4b01-90e6-d701748f0851".to_owned();
    let time = Timestamp {
        seconds: 1_626_789_600,
        nanos: 0,
    };
    VoiceCall {
        uid: uid.clone(),
        duration: Some(120),
        created_at: Some(time),
        updated_at: None,
        status: VoiceCallStatus::AnsweredByStaff.into(),
        direction: VoiceCallDirection::Inbound.into(),
        staff_uid: Some(uid.clone()),
        client_uid: Some(uid.clone()),
        from_number: Some("183466347342".into()),
        to_number: Some("183466347342".into()),
        recording_url: Some("https://example.com/recording.mp3".into()),
        call_summary: Some("Client called to ask about their account balance".into()),
        external_app_url: Some("https://example.com/call-details".into()),
        handled_by_staff_uid: Some(uid),
        handled_at: Some(time),
        deleted_at: None,
        revision: 0,
    }
}

/// A fresh request id.
pub(crate) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Creates a call and answers it as recorded.
pub(crate) async fn create(client: &mut Client, voice_call: VoiceCall) -> VoiceCall {
    let request = proto::CreateVoiceCallRequest {
        voice_call: Some(voice_call),
        ..Default::default()
    };
    let response = client
        .create_voice_call(request)
        .await
        .expect("it is created");
    response.into_inner().voice_call.expect("it is answered")
}

/// Looks a call up.
pub(crate) async fn get(client: &mut Client, uid: &str) -> Result<VoiceCall, Status> {
    let request = proto::GetVoiceCallRequest {
        uid: uid.into(),
        ..Default::default()
    };
    let response = client.get_voice_call(request).await?;
    Ok(response.into_inner().voice_call.expect("it is answered"))
}

/// What an error says to programs: its code, its reason, and the paths of the
/// fields at fault.
pub(crate) fn facts(status: &Status) -> (Code, String, Vec<String>) {
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has an ErrorInfo");
    assert_eq!(info.domain, "voicecall.v1");
    let violations = details
        .bad_request()
        .map(|bad| bad.field_violations.clone());
    let paths = violations
        .unwrap_or_default()
        .into_iter()
        .map(|one| one.field)
        .collect();
    (status.code(), info.reason.clone(), paths)
}

/// Asserts that the result is this error, with these fields at fault.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
    paths: &[&str],
) {
    let status = result.expect_err("it is refused");
    let (actual_code, actual_reason, actual_paths) = facts(&status);
    assert_eq!(
        (actual_code, actual_reason.as_str()),
        (code, reason),
        "{}",
        status.message()
    );
    assert_eq!(actual_paths, paths);
}
