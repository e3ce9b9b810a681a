//! The fields of a call, from the wire. An absent or empty value is `None`; an invalid one is
//! a violation.

use crate::{
    api::violations::Violations,
    domain::{Direction, Field, FieldSet, Patch, Seconds, Status, Timestamp, text::TextError},
    proto,
};

/// How far the clock of a client may be ahead of the server's.
const MAX_AHEAD_MICROS: i64 = 5 * 60 * 1_000_000;

/// The writable fields that are set in the message.
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

/// The values of `fields`; all other fields of the message are ignored.
pub(crate) fn patch(
    call: proto::VoiceCall,
    fields: FieldSet,
    path: &str,
    violations: &mut Violations,
) -> Patch {
    let is_selected = |field| fields.contains(field);
    let mut patch = Patch {
        fields,
        ..Patch::default()
    };
    /// Parses a text field, if it is selected.
    macro_rules! text {
        ($($field:ident: $name:ident),* $(,)?) => {
            $(if is_selected(Field::$field) {
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
    if is_selected(Field::Duration) {
        patch.duration = seconds(call.duration, &at(path, Field::Duration), violations);
    }
    if is_selected(Field::Status) {
        patch.status = status(call.status, &at(path, Field::Status), violations);
    }
    if is_selected(Field::Direction) {
        patch.direction = direction(call.direction, &at(path, Field::Direction), violations);
    }
    if is_selected(Field::HandledAt) {
        patch.handled_at = timestamp(call.handled_at, &at(path, Field::HandledAt), violations);
    }
    patch
}

fn at(path: &str, field: Field) -> String {
    format!("{path}.{}", field.name())
}

/// An optional text; an empty one counts as absent.
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

/// A duration in whole seconds.
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

/// A status; unspecified counts as absent.
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

/// A direction; unspecified counts as absent.
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

/// A time that is not in the future, apart from the difference of two clocks.
pub(crate) fn past_timestamp(
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
