//! The calls that are written and looked up. Call `n` is the same here as in the database
//! (`seed`).

use prost::bytes::Bytes;
use uuid::Uuid;
use voicecall::proto::{VoiceCall, VoiceCallDirection, VoiceCallStatus};

/// The number of staff, of clients, and of phone numbers on either side, among which calls are
/// distributed.
pub(crate) const STAFF: u64 = 1_000;
pub(crate) const CLIENTS: u64 = 100_000;
pub(crate) const FROM_NUMBERS: u64 = 50_000;
pub(crate) const TO_NUMBERS: u64 = 200;

/// The uid of the seeded call `n`, from 1.
pub(crate) fn uid(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

pub(crate) fn staff(n: u64) -> String {
    format!("5ca1ab1e-0000-4000-8000-{:012}", n % STAFF)
}

/// A member of staff that no other number has; calls are of the first of them.
pub(crate) fn own_staff(n: u64) -> String {
    format!("5ca1ab1e-0000-4000-8000-{n:012}")
}

pub(crate) fn client(n: u64) -> String {
    format!("c1ea0000-0000-4000-8000-{:012}", n % CLIENTS)
}

pub(crate) fn from_number(n: u64) -> String {
    format!("+1415{:07}", n % FROM_NUMBERS)
}

pub(crate) fn to_number(n: u64) -> String {
    format!("+1628{:07}", n % TO_NUMBERS)
}

/// A call to create, like the seeded ones.
pub(crate) fn new() -> VoiceCall {
    let n = rand::random_range(0..1_000_000_000);
    VoiceCall {
        duration: Some(120),
        status: VoiceCallStatus::AnsweredByStaff.into(),
        direction: VoiceCallDirection::Inbound.into(),
        staff_uid: Some(staff(n)),
        client_uid: Some(client(n)),
        from_number: Some(from_number(n)),
        to_number: Some(to_number(n)),
        recording_url: Some("https://example.com/recording.mp3".into()),
        call_summary: Some("Client called to ask about their account balance".into()),
        external_app_url: Some("https://example.com/call-details".into()),
        ..Default::default()
    }
}

/// A call as in a response, with the fields that the server adds.
pub(crate) fn stored() -> VoiceCall {
    let now = Some(std::time::SystemTime::now().into());
    VoiceCall {
        uid: Uuid::now_v7().to_string(),
        created_at: now,
        updated_at: now,
        revision: 1_000_000,
        ..new()
    }
}

/// The bytes of a stored call, for servers that do not interpret values.
pub(crate) fn value() -> Bytes {
    prost::Message::encode_to_vec(&stored()).into()
}

/// A new id for a request.
pub(crate) fn request_id() -> String {
    Uuid::new_v4().to_string()
}
