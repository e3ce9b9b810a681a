//! Rows to calls, and a call's values to SQL. What the database holds was
//! checked on its way in, and is not checked again.

use std::sync::Arc;

use diesel::{
    data_types::PgTimestamp,
    deserialize::{self, FromSql, FromSqlRow},
    pg::{Pg, PgValue},
    prelude::{Queryable, Selectable},
};
use serde_json::{Map, Value};

use super::schema::{
    sql_types::{VoiceCallChangeKind, VoiceCallDirection, VoiceCallStatus},
    voice_call_changes, voice_calls,
};
use crate::domain::{
    Attributes, Call, Change, ChangeKind, Direction, Field, Identifier, PendingCall, PendingTime,
    PhoneNumber, Revision, Seconds, Status, Summary, Timestamp, Url, Uuid,
};

/// Microseconds from 1970, where our times begin, to 2000, where PostgreSQL's do.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The time as PostgreSQL has it.
pub(super) fn to_sql_time(time: Timestamp) -> PgTimestamp {
    PgTimestamp(time.micros() - POSTGRES_EPOCH_MICROS)
}

/// The time as the commit function takes it: `infinity` becomes the time of the
/// commit.
pub(super) fn to_commit_time(time: PendingTime) -> PgTimestamp {
    match time {
        PendingTime::Known(time) => to_sql_time(time),
        PendingTime::AtCommit => PgTimestamp(i64::MAX),
    }
}

/// The time as the domain has it; what lies outside its range is brought in.
pub(super) fn from_sql_time(PgTimestamp(micros): PgTimestamp) -> Timestamp {
    Timestamp::clamped(micros.saturating_add(POSTGRES_EPOCH_MICROS))
}

/// A status read by its word.
#[derive(Debug, FromSqlRow)]
pub(super) struct StatusWord(pub(super) Status);

impl FromSql<VoiceCallStatus, Pg> for StatusWord {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Status::from_word(std::str::from_utf8(
            value.as_bytes(),
        )?)))
    }
}

/// A direction read by its word.
#[derive(Debug, FromSqlRow)]
pub(super) struct DirectionWord(pub(super) Direction);

impl FromSql<VoiceCallDirection, Pg> for DirectionWord {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Direction::from_word(std::str::from_utf8(
            value.as_bytes(),
        )?)))
    }
}

/// The kind of a change read by its word.
#[derive(Debug, FromSqlRow)]
pub(super) struct KindWord(Option<ChangeKind>);

impl FromSql<VoiceCallChangeKind, Pg> for KindWord {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(ChangeKind::from_word(std::str::from_utf8(
            value.as_bytes(),
        )?)))
    }
}

/// One row of `voice_calls`.
#[derive(Queryable, Selectable)]
#[diesel(table_name = voice_calls, check_for_backend(Pg))]
pub(super) struct CallRow {
    uid: Uuid,
    duration: Option<i32>,
    created_at: PgTimestamp,
    updated_at: PgTimestamp,
    status: StatusWord,
    direction: DirectionWord,
    staff_uid: Option<String>,
    client_uid: Option<String>,
    from_number: Option<String>,
    to_number: Option<String>,
    recording_url: Option<String>,
    call_summary: Option<String>,
    external_app_url: Option<String>,
    handled_by_staff_uid: Option<String>,
    handled_at: Option<PgTimestamp>,
    deleted_at: Option<PgTimestamp>,
    revision: i64,
}

/// One entry of the log.
#[derive(Queryable, Selectable)]
#[diesel(table_name = voice_call_changes, check_for_backend(Pg))]
pub(super) struct ChangeRow {
    pub(super) revision: Revision,
    pub(super) stamp: i64,
    changed_at: PgTimestamp,
    kind: KindWord,
    actor: Option<String>,
    request_id: Option<Uuid>,
    transaction_end: bool,
    old_values: Option<Value>,
    uid: Uuid,
    duration: Option<i32>,
    created_at: Option<PgTimestamp>,
    updated_at: Option<PgTimestamp>,
    status: Option<StatusWord>,
    direction: Option<DirectionWord>,
    staff_uid: Option<String>,
    client_uid: Option<String>,
    from_number: Option<String>,
    to_number: Option<String>,
    recording_url: Option<String>,
    call_summary: Option<String>,
    external_app_url: Option<String>,
    handled_by_staff_uid: Option<String>,
    handled_at: Option<PgTimestamp>,
    deleted_at: Option<PgTimestamp>,
}

impl ChangeRow {
    /// The entry as a change; the states of a purged call are gone.
    pub(super) fn into_change(self) -> Change {
        let (uid, revision) = (self.uid, self.revision);
        let mut change = Change {
            revision,
            kind: self.kind.0,
            uid,
            before: None,
            after: None,
            actor: self.actor.map(Into::into),
            request_id: self.request_id,
            transaction_end: self.transaction_end,
            changed_at: from_sql_time(self.changed_at),
        };
        if let (Some(created_at), Some(updated_at), Some(status), Some(direction)) = (
            self.created_at,
            self.updated_at,
            self.status,
            self.direction,
        ) {
            let after = Call::from(CallRow {
                uid,
                duration: self.duration,
                created_at,
                updated_at,
                status,
                direction,
                staff_uid: self.staff_uid,
                client_uid: self.client_uid,
                from_number: self.from_number,
                to_number: self.to_number,
                recording_url: self.recording_url,
                call_summary: self.call_summary,
                external_app_url: self.external_app_url,
                handled_by_staff_uid: self.handled_by_staff_uid,
                handled_at: self.handled_at,
                deleted_at: self.deleted_at,
                revision,
            });
            let old_values = self.old_values.as_ref();
            change.before = old_values.map(|old| Arc::new(with_old_values(after.clone(), old)));
            change.after = Some(Arc::new(after));
        }
        change
    }
}

impl From<CallRow> for Call {
    fn from(row: CallRow) -> Self {
        Self {
            uid: row.uid,
            created_at: from_sql_time(row.created_at),
            updated_at: from_sql_time(row.updated_at),
            deleted_at: row.deleted_at.map(from_sql_time),
            attributes: Attributes {
                duration: row.duration.and_then(Seconds::new),
                status: row.status.0,
                direction: row.direction.0,
                staff_uid: row.staff_uid.map(Identifier::assume_valid),
                client_uid: row.client_uid.map(Identifier::assume_valid),
                from_number: row.from_number.map(PhoneNumber::assume_valid),
                to_number: row.to_number.map(PhoneNumber::assume_valid),
                recording_url: row.recording_url.map(Url::assume_valid),
                call_summary: row.call_summary.map(Summary::assume_valid),
                external_app_url: row.external_app_url.map(Url::assume_valid),
                handled_by_staff_uid: row.handled_by_staff_uid.map(Identifier::assume_valid),
                handled_at: row.handled_at.map(from_sql_time),
            },
            revision: row.revision,
        }
    }
}

/// What the fields that differ between `before` and `after` held before: a JSON
/// object by field name, times in microseconds since 1970.
pub(super) fn old_values(before: &Call, after: &PendingCall) -> String {
    let fields = after.changed_fields(before);
    let object: Map<String, Value> = fields
        .iter()
        .map(|field| (field.name().to_owned(), old_value(before, field)))
        .collect();
    Value::Object(object).to_string()
}

fn old_value(before: &Call, field: Field) -> Value {
    let a = &before.attributes;
    let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    let time = |time: Option<Timestamp>| time.map_or(Value::Null, |t| t.micros().into());
    match field {
        Field::Uid => before.uid.to_string().into(),
        Field::Duration => a.duration.map_or(Value::Null, |d| d.get().into()),
        Field::CreatedAt => time(Some(before.created_at)),
        Field::UpdatedAt => time(Some(before.updated_at)),
        Field::Status => a.status.word().into(),
        Field::Direction => a.direction.word().into(),
        Field::StaffUid => text(a.staff_uid.as_ref().map(Identifier::as_str)),
        Field::ClientUid => text(a.client_uid.as_ref().map(Identifier::as_str)),
        Field::FromNumber => text(a.from_number.as_ref().map(PhoneNumber::as_str)),
        Field::ToNumber => text(a.to_number.as_ref().map(PhoneNumber::as_str)),
        Field::RecordingUrl => text(a.recording_url.as_ref().map(Url::as_str)),
        Field::CallSummary => text(a.call_summary.as_ref().map(Summary::as_str)),
        Field::ExternalAppUrl => text(a.external_app_url.as_ref().map(Url::as_str)),
        Field::HandledByStaffUid => text(a.handled_by_staff_uid.as_ref().map(Identifier::as_str)),
        Field::HandledAt => time(a.handled_at),
        Field::DeletedAt => time(before.deleted_at),
        Field::Revision => before.revision.into(),
    }
}

/// The state before a change: the state after it with the old values put back.
pub(super) fn with_old_values(after: Call, old_values: &Value) -> Call {
    let mut call = after;
    let Some(object) = old_values.as_object() else {
        return call;
    };
    for (name, value) in object {
        if let Some(field) = Field::from_name(name) {
            put_back(&mut call, field, value);
        }
    }
    call
}

fn put_back(call: &mut Call, field: Field, value: &Value) {
    let a = &mut call.attributes;
    let text = || value.as_str().map(str::to_owned);
    let time = || value.as_i64().map(Timestamp::clamped);
    match field {
        Field::Uid => {}
        Field::Duration => {
            let seconds = value
                .as_i64()
                .and_then(|seconds| i32::try_from(seconds).ok());
            a.duration = seconds.and_then(Seconds::new);
        }
        Field::CreatedAt => call.created_at = time().unwrap_or(call.created_at),
        Field::UpdatedAt => call.updated_at = time().unwrap_or(call.updated_at),
        Field::Status => a.status = Status::from_word(value.as_str().unwrap_or_default()),
        Field::Direction => a.direction = Direction::from_word(value.as_str().unwrap_or_default()),
        Field::StaffUid => a.staff_uid = text().map(Identifier::assume_valid),
        Field::ClientUid => a.client_uid = text().map(Identifier::assume_valid),
        Field::FromNumber => a.from_number = text().map(PhoneNumber::assume_valid),
        Field::ToNumber => a.to_number = text().map(PhoneNumber::assume_valid),
        Field::RecordingUrl => a.recording_url = text().map(Url::assume_valid),
        Field::CallSummary => a.call_summary = text().map(Summary::assume_valid),
        Field::ExternalAppUrl => a.external_app_url = text().map(Url::assume_valid),
        Field::HandledByStaffUid => a.handled_by_staff_uid = text().map(Identifier::assume_valid),
        Field::HandledAt => a.handled_at = time(),
        Field::DeletedAt => call.deleted_at = time(),
        Field::Revision => call.revision = value.as_i64().unwrap_or(call.revision),
    }
}
