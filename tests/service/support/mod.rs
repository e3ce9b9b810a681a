//! What the tests share.

pub(crate) mod bad_values;
pub(crate) mod clock;
pub(crate) mod dir;
pub(crate) mod faults;
pub(crate) mod frames;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod ledger;
pub(crate) mod load;
mod load_reads;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod read_time;
pub(crate) mod reads;
pub(crate) mod resuming_watchers;
pub(crate) mod secured;
pub(crate) mod server;
pub(crate) mod storm;
pub(crate) mod tally;
pub(crate) mod tokens;
pub(crate) mod told;
pub(crate) mod watcher;
pub(crate) mod wire_connection;
pub(crate) mod writes;

use std::{collections::HashMap, time::Duration};

use prost_types::{FieldMask, Timestamp};
use tokio::time::{interval, timeout};
use tonic::{Code, Request, Status, metadata::MetadataValue};
use tonic_types::StatusExt;
use voicecall::proto::{self, VoiceCall, VoiceCallDirection, VoiceCallStatus};

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

/// A request with a bearer token.
pub(crate) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}"));
    let value = value.expect("a token is text");
    request.metadata_mut().insert("authorization", value);
    request
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

/// Updates a call by these mask paths; none: without a mask.
pub(crate) async fn update(
    client: &mut Client,
    voice_call: VoiceCall,
    paths: &[&str],
) -> Result<VoiceCall, Status> {
    let request = proto::UpdateVoiceCallRequest {
        voice_call: Some(voice_call),
        update_mask: mask(paths),
        ..Default::default()
    };
    let response = client.update_voice_call(request).await?;
    Ok(response.into_inner().voice_call.expect("it is answered"))
}

/// A mask of these paths; none: no mask.
pub(crate) fn mask(paths: &[&str]) -> Option<FieldMask> {
    let paths: Vec<String> = paths.iter().map(|&path| path.into()).collect();
    (!paths.is_empty()).then_some(FieldMask { paths })
}

/// Marks a call as handled now.
pub(crate) async fn handle(
    client: &mut Client,
    uid: &str,
    staff: &str,
) -> Result<VoiceCall, Status> {
    let request = proto::HandleVoiceCallRequest {
        uid: uid.into(),
        handled_by_staff_uid: staff.into(),
        ..Default::default()
    };
    let response = client.handle_voice_call(request).await?;
    Ok(response.into_inner().voice_call.expect("it is answered"))
}

/// Deletes a call.
pub(crate) async fn delete(client: &mut Client, uid: &str) -> Result<VoiceCall, Status> {
    let request = proto::DeleteVoiceCallRequest {
        uid: uid.into(),
        ..Default::default()
    };
    let response = client.delete_voice_call(request).await?;
    Ok(response.into_inner().voice_call.expect("it is answered"))
}

/// Restores a call.
pub(crate) async fn undelete(client: &mut Client, uid: &str) -> Result<VoiceCall, Status> {
    let request = proto::UndeleteVoiceCallRequest {
        uid: uid.into(),
        ..Default::default()
    };
    let response = client.undelete_voice_call(request).await?;
    Ok(response.into_inner().voice_call.expect("it is answered"))
}

/// A time, in microseconds since 1970.
pub(crate) fn micros(time: Option<Timestamp>) -> i64 {
    let time = time.expect("it is set");
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1000
}

/// Waits until the condition holds; a test that waits in vain fails.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    eventually_within(Duration::from_secs(20), what, holds).await;
}

/// The same for what may take longer, or must not.
pub(crate) async fn eventually_within(
    patience: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) {
    let mut looks = interval(Duration::from_millis(5));
    let wait = async {
        loop {
            looks.tick().await;
            if holds().await {
                return;
            }
        }
    };
    let waited = timeout(patience, wait).await;
    assert!(waited.is_ok(), "waited in vain until {what}");
}

/// Waits for work to end. After `patience`, calls `give_up`, and waits on.
pub(crate) async fn finish_within<T>(
    patience: Duration,
    work: impl Future<Output = T>,
    give_up: impl FnOnce(),
) -> T {
    let mut work = std::pin::pin!(work);
    match timeout(patience, &mut work).await {
        Ok(result) => result,
        Err(_) => {
            give_up();
            work.await
        }
    }
}

/// The metadata of an error's ErrorInfo.
pub(crate) fn metadata(status: &Status) -> HashMap<String, String> {
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has an ErrorInfo");
    info.metadata.clone()
}

/// How long an error says to wait before a retry; no time at all says nothing.
pub(crate) fn retry_after(status: &Status) -> Option<Duration> {
    let delay = status.get_error_details().retry_info()?.retry_delay;
    delay.filter(|delay| !delay.is_zero())
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

/// Asserts that the result is this error, with these fields at fault, in any
/// order.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
    paths: &[&str],
) {
    let status = result.expect_err("it is refused");
    let (actual_code, actual_reason, mut actual_paths) = facts(&status);
    assert_eq!(
        (actual_code, actual_reason.as_str()),
        (code, reason),
        "{}",
        status.message()
    );
    let mut paths = paths.to_vec();
    paths.sort_unstable();
    actual_paths.sort_unstable();
    assert_eq!(actual_paths, paths);
}
