//! The fields of a call, from the wire. An absent or empty value is `None`; an invalid one is
//! a violation.

use crate::{
    api::violations::Violations,
    domain::{
        Attributes, Direction, Edit, Field, FieldSet, Identifier, Patch, PhoneNumber, Seconds,
        Status, Summary, Timestamp, Url, text::TextError,
    },
    proto,
};

/// How far the clock of a client may be ahead of the server's.
const MAX_AHEAD_MICROS: i64 = 5 * 60 * 1_000_000;

/// The writable fields that are set in the message.
pub(crate) fn present(call: &proto::VoiceCall) -> FieldSet {
    FieldSet::where_true([
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
    ])
}

/// What a message holds of the fields that clients write; absent is `None`.
#[derive(Clone, Default)]
pub(crate) struct Values {
    duration: Option<Seconds>,
    status: Option<Status>,
    direction: Option<Direction>,
    staff_uid: Option<Identifier>,
    client_uid: Option<Identifier>,
    from_number: Option<PhoneNumber>,
    to_number: Option<PhoneNumber>,
    recording_url: Option<Url>,
    call_summary: Option<Summary>,
    external_app_url: Option<Url>,
    handled_by_staff_uid: Option<Identifier>,
    handled_at: Option<Timestamp>,
}

impl Values {
    /// All attributes, as a new call needs them: an absent status is
    /// [`Status::IncomingCall`]. `None` when the direction is absent.
    pub(crate) fn into_attributes(self) -> Option<Attributes> {
        Some(Attributes {
            duration: self.duration,
            status: self.status.unwrap_or(Status::IncomingCall),
            direction: self.direction?,
            staff_uid: self.staff_uid,
            client_uid: self.client_uid,
            from_number: self.from_number,
            to_number: self.to_number,
            recording_url: self.recording_url,
            call_summary: self.call_summary,
            external_app_url: self.external_app_url,
            handled_by_staff_uid: self.handled_by_staff_uid,
            handled_at: self.handled_at,
        })
    }

    /// The update that writes `fields`: those that are absent are cleared,
    /// except status and direction, which are kept.
    pub(crate) fn into_patch(self, fields: FieldSet) -> Patch {
        Patch {
            duration: edit(fields, Field::Duration, self.duration),
            status: self.status.filter(|_| fields.contains(Field::Status)),
            direction: self.direction.filter(|_| fields.contains(Field::Direction)),
            staff_uid: edit(fields, Field::StaffUid, self.staff_uid),
            client_uid: edit(fields, Field::ClientUid, self.client_uid),
            from_number: edit(fields, Field::FromNumber, self.from_number),
            to_number: edit(fields, Field::ToNumber, self.to_number),
            recording_url: edit(fields, Field::RecordingUrl, self.recording_url),
            call_summary: edit(fields, Field::CallSummary, self.call_summary),
            external_app_url: edit(fields, Field::ExternalAppUrl, self.external_app_url),
            handled_by_staff_uid: edit(fields, Field::HandledByStaffUid, self.handled_by_staff_uid),
            handled_at: edit(fields, Field::HandledAt, self.handled_at),
        }
    }
}

fn edit<T>(fields: FieldSet, field: Field, value: Option<T>) -> Edit<T> {
    match value {
        _ if !fields.contains(field) => Edit::Keep,
        None => Edit::Clear,
        Some(value) => Edit::Set(value),
    }
}

/// The values of `fields`; all other fields of the message are ignored.
pub(crate) fn values(
    call: proto::VoiceCall,
    fields: FieldSet,
    path: &str,
    violations: &mut Violations,
) -> Values {
    let is_selected = |field| fields.contains(field);
    let mut values = Values::default();
    /// Parses a text field, if it is selected.
    macro_rules! text {
        ($($field:ident: $name:ident),* $(,)?) => {
            $(if is_selected(Field::$field) {
                values.$name = text(call.$name, Field::$field, path, violations, TryFrom::try_from);
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
        values.duration = seconds(call.duration, &at(path, Field::Duration), violations);
    }
    if is_selected(Field::Status) {
        values.status = status(call.status, &at(path, Field::Status), violations);
    }
    if is_selected(Field::Direction) {
        values.direction = direction(call.direction, &at(path, Field::Direction), violations);
    }
    if is_selected(Field::HandledAt) {
        values.handled_at = timestamp(call.handled_at, &at(path, Field::HandledAt), violations);
    }
    values
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
