//! Calls, to the wire.

use std::sync::Arc;

use crate::{
    domain::{
        Attributes, Call, Direction, Identifier, PendingCall, PendingTime, PhoneNumber, Seconds,
        Status, Summary, Timestamp, Url,
    },
    proto,
};

/// The message of a shared call, which is cloned only if another owner is left.
pub(crate) fn shared(call: Arc<Call>) -> proto::VoiceCall {
    self::call(Arc::unwrap_or_clone(call))
}

/// The message of a call.
pub(crate) fn call(call: Call) -> proto::VoiceCall {
    proto::VoiceCall {
        uid: call.uid.to_string(),
        created_at: Some(timestamp(call.created_at)),
        updated_at: Some(timestamp(call.updated_at)),
        deleted_at: call.deleted_at.map(timestamp),
        revision: call.revision,
        ..attributes(call.attributes)
    }
}

/// The message of a call as a change would leave it if it were committed now:
/// without a revision.
pub(crate) fn pending(call: PendingCall, now: Timestamp) -> proto::VoiceCall {
    let time = |time: PendingTime| timestamp(time.resolve(now));
    proto::VoiceCall {
        uid: call.uid.to_string(),
        created_at: Some(time(call.created_at)),
        updated_at: Some(time(call.updated_at)),
        deleted_at: call.deleted_at.map(time),
        ..attributes(call.attributes.resolve(now))
    }
}

fn attributes(a: Attributes) -> proto::VoiceCall {
    proto::VoiceCall {
        duration: a.duration.map(Seconds::get),
        status: status(&a.status).into(),
        direction: direction(&a.direction).into(),
        staff_uid: a.staff_uid.map(Identifier::into_string),
        client_uid: a.client_uid.map(Identifier::into_string),
        from_number: a.from_number.map(PhoneNumber::into_string),
        to_number: a.to_number.map(PhoneNumber::into_string),
        recording_url: a.recording_url.map(Url::into_string),
        call_summary: a.call_summary.map(Summary::into_string),
        external_app_url: a.external_app_url.map(Url::into_string),
        handled_by_staff_uid: a.handled_by_staff_uid.map(Identifier::into_string),
        handled_at: a.handled_at.map(timestamp),
        ..proto::VoiceCall::default()
    }
}

/// The message of a time.
pub(crate) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.parts();
    prost_types::Timestamp { seconds, nanos }
}

/// A status that a newer release wrote has no number here, and is sent as unspecified.
pub(crate) fn status(status: &Status) -> proto::VoiceCallStatus {
    match status {
        Status::IncomingCall => proto::VoiceCallStatus::IncomingCall,
        Status::AnsweredByStaff => proto::VoiceCallStatus::AnsweredByStaff,
        Status::Missed => proto::VoiceCallStatus::Missed,
        Status::AnsweredByVonage => proto::VoiceCallStatus::AnsweredByVonage,
        Status::Unrecognized(_) => proto::VoiceCallStatus::Unspecified,
    }
}

/// A direction that a newer release wrote has no number here, and is sent as unspecified.
pub(crate) fn direction(direction: &Direction) -> proto::VoiceCallDirection {
    match direction {
        Direction::Inbound => proto::VoiceCallDirection::Inbound,
        Direction::Outbound => proto::VoiceCallDirection::Outbound,
        Direction::Unrecognized(_) => proto::VoiceCallDirection::Unspecified,
    }
}
