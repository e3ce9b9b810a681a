//! The fields of a call, from the wire: absent and empty are told apart from
//! bad, and bad is said by path.

use crate::{
    api::violations::Violations,
    domain::{Direction, Field, FieldSet, Patch, Seconds, Status, Timestamp, text::TextError},
    proto,
};

/// How far ahead of the server's clock a client's may be.
const MAX_AHEAD_MICROS: i64 = 5 * 60 * 1_000_000;

/// The fields that are set in the message, of those that clients write.
pub(crate) fn present(call: &proto::VoiceCall) -> FieldSet {
    [
        (Field::Duration, call.duration.is_some()),
        (Field::Status, call.status != 0),
        (Field::Direction, call.direction != 0),
        (Field::StaffUid, call.staff_uid.is_some()),
        (Field::ClientUid, call.client_uid.is_some()),
        (Field::FromNumber, call.from_number.is_some()),
        (Field::ToNumber, call.to_number.is_some()),
        (Field::RecordingUrl, call.recording_url.is_some()),
        (Field::CallSummary, call.call_summary.is_some()),
        (Field::ExternalAppUrl, call.external_app_url.is_some()),
        (
            Field::HandledByStaffUid,
            call.handled_by_staff_uid.is_some(),
        ),
        (Field::HandledAt, call.handled_at.is_some()),
    ]
    .into_iter()
    .filter_map(|(field, set)| set.then_some(field))
    .collect()
}

/// The values of `fields`; what else the message holds is not looked at.
pub(crate) fn patch(
    call: proto::VoiceCall,
    fields: FieldSet,
    path: &str,
    violations: &mut Violations,
) -> Patch {
    let wanted = |field| fields.contains(field);
    let mut patch = Patch {
        fields,
        ..Patch::default()
    };
    /// Reads a text field, if it is wanted.
    macro_rules! text {
        ($($field:ident: $name:ident),* $(,)?) => {
            $(if wanted(Field::$field) {
                patch.$name = text(call.$name, Field::$field, path, violations, TryFrom::try_from);
            })*
        };
    }
    text! {
        StaffUid: staff_uid,
        ClientUid: client_uid,
        FromNumber: from_number,
        ToNumber: to_number,
        RecordingUrl: recording_url,
        CallSummary: call_summary,
        ExternalAppUrl: external_app_url,
        HandledByStaffUid: handled_by_staff_uid,
    }
    if wanted(Field::Duration) {
        patch.duration = seconds(call.duration, &at(path, Field::Duration), violations);
    }
    if wanted(Field::Status) {
        patch.status = status(call.status, &at(path, Field::Status), violations);
    }
    if wanted(Field::Direction) {
        patch.direction = direction(call.direction, &at(path, Field::Direction), violations);
    }
    if wanted(Field::HandledAt) {
        patch.handled_at = timestamp(call.handled_at, &at(path, Field::HandledAt), violations);
    }
    patch
}

fn at(path: &str, field: Field) -> String {
    format!("{path}.{}", field.name())
}

/// An optional text: absent and empty are both absent.
fn text<T>(
    value: Option<String>,
    field: Field,
    path: &str,
    violations: &mut Violations,
    parse: impl FnOnce(String) -> Result<T, TextError>,
) -> Option<T> {
    let value = value.filter(|value| !value.is_empty())?;
    parse(value)
        .map_err(|error| violations.push(at(path, field), error))
        .ok()
}

/// A length of time.
pub(crate) fn seconds(
    value: Option<i32>,
    path: &str,
    violations: &mut Violations,
) -> Option<Seconds> {
    let seconds = Seconds::new(value?);
    if seconds.is_none() {
        violations.push(path, "must not be negative");
    }
    seconds
}

/// A status; unspecified is absent.
pub(crate) fn status(value: i32, path: &str, violations: &mut Violations) -> Option<Status> {
    use proto::VoiceCallStatus as S;
    match S::try_from(value) {
        Ok(S::Unspecified) => None,
        Ok(S::IncomingCall) => Some(Status::IncomingCall),
        Ok(S::AnsweredByStaff) => Some(Status::AnsweredByStaff),
        Ok(S::Missed) => Some(Status::Missed),
        Ok(S::AnsweredByVonage) => Some(Status::AnsweredByVonage),
        Err(_) => {
            violations.push(path, format!("has the unknown value {value}"));
            None
        }
    }
}

/// A direction; unspecified is absent.
pub(crate) fn direction(value: i32, path: &str, violations: &mut Violations) -> Option<Direction> {
    use proto::VoiceCallDirection as D;
    match D::try_from(value) {
        Ok(D::Unspecified) => None,
        Ok(D::Inbound) => Some(Direction::Inbound),
        Ok(D::Outbound) => Some(Direction::Outbound),
        Err(_) => {
            violations.push(path, format!("has the unknown value {value}"));
            None
        }
    }
}

/// A time.
pub(crate) fn timestamp(
    value: Option<prost_types::Timestamp>,
    path: &str,
    violations: &mut Violations,
) -> Option<Timestamp> {
    let value = value?;
    Timestamp::from_parts(value.seconds, value.nanos)
        .map_err(|error| violations.push(path, error))
        .ok()
}

/// A time that is not in the future, but for the difference of two clocks.
pub(crate) fn past(
    value: Option<prost_types::Timestamp>,
    path: &str,
    now: Timestamp,
    violations: &mut Violations,
) -> Option<Timestamp> {
    let time = timestamp(value, path, violations)?;
    if time > now.plus_micros(MAX_AHEAD_MICROS) {
        violations.push(
            path,
            "must be at most 5 minutes ahead of the server's clock",
        );
    }
    Some(time)
}
