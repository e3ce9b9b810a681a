//! Calls to the wire.

use super::proto;
use crate::domain::{Call, Direction, Identifier, PhoneNumber, Status, Summary, Timestamp, Url};

/// The call's message.
pub(super) fn call(call: &Call) -> proto::VoiceCall {
    let a = &call.attributes;
    let name = |name: &Identifier| name.as_str().to_owned();
    let number = |number: &PhoneNumber| number.as_str().to_owned();
    let url = |url: &Url| url.as_str().to_owned();
    proto::VoiceCall {
        uid: call.uid.to_string(),
        duration: a.duration.map(|duration| duration.get()),
        created_at: Some(timestamp(call.created_at)),
        updated_at: Some(timestamp(call.updated_at)),
        status: status(&a.status).into(),
        direction: direction(&a.direction).into(),
        staff_uid: a.staff_uid.as_ref().map(name),
        client_uid: a.client_uid.as_ref().map(name),
        from_number: a.from_number.as_ref().map(number),
        to_number: a.to_number.as_ref().map(number),
        recording_url: a.recording_url.as_ref().map(url),
        call_summary: a
            .call_summary
            .as_ref()
            .map(Summary::as_str)
            .map(str::to_owned),
        external_app_url: a.external_app_url.as_ref().map(url),
        handled_by_staff_uid: a.handled_by_staff_uid.as_ref().map(name),
        handled_at: a.handled_at.map(timestamp),
        deleted_at: call.deleted_at.map(timestamp),
        revision: call.revision,
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.parts();
    prost_types::Timestamp { seconds, nanos }
}

fn status(status: &Status) -> proto::VoiceCallStatus {
    match status {
        Status::IncomingCall => proto::VoiceCallStatus::IncomingCall,
        Status::AnsweredByStaff => proto::VoiceCallStatus::AnsweredByStaff,
        Status::Missed => proto::VoiceCallStatus::Missed,
        Status::AnsweredByVonage => proto::VoiceCallStatus::AnsweredByVonage,
        Status::Unrecognized(_) => proto::VoiceCallStatus::Unspecified,
    }
}

fn direction(direction: &Direction) -> proto::VoiceCallDirection {
    match direction {
        Direction::Inbound => proto::VoiceCallDirection::Inbound,
        Direction::Outbound => proto::VoiceCallDirection::Outbound,
        Direction::Unrecognized(_) => proto::VoiceCallDirection::Unspecified,
    }
}
