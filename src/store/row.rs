//! Rows to calls and changes, and the old values of a change.

use std::sync::Arc;

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    pg::{Pg, PgValue},
    prelude::{Queryable, Selectable},
};
use serde_json::{Map, Value};

use super::{
    columns::{ColumnField, call_columns},
    schema::{sql_types::VoiceCallChangeKind, voice_call_changes, voice_calls},
};
use crate::domain::{
    Attributes, Call, Change, ChangeKind, Direction, Field, Identifier, PendingCall, PhoneNumber,
    Revision, Seconds, Status, Summary, Timestamp, Url, Uuid,
};

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

/// What is read of a call, with a field for each column.
macro_rules! rows {
    ($($part:ident.$column:ident: $type:ty => $parameter:literal $sql_type:ty,)*) => {
        /// One row of `voice_calls`.
        #[derive(Queryable, Selectable)]
        #[diesel(table_name = voice_calls, check_for_backend(Pg))]
        pub(super) struct CallRow {
            uid: Uuid,
            $($column: $type,)*
            revision: Revision,
        }

        /// The call in an entry of the log; all are null if it was purged.
        #[derive(Queryable, Selectable)]
        #[diesel(table_name = voice_call_changes, check_for_backend(Pg))]
        pub(super) struct StateColumns {
            $($column: Option<<$type as ColumnField>::Value>,)*
        }

        impl StateColumns {
            fn into_call(self, uid: Uuid, revision: Revision) -> Option<Call> {
                let row = CallRow {
                    uid,
                    $($column: ColumnField::from_value(self.$column)?,)*
                    revision,
                };
                Some(row.into())
            }
        }
    };
}

call_columns!(rows, Timestamp);

// Rows are read by position: a query that selects the table's columns gives them in the order
// of the fields, or this does not compile.
const _: fn() -> <CallRow as Selectable<Pg>>::SelectExpression = || voice_calls::all_columns;

/// One entry of the log.
#[derive(Queryable, Selectable)]
#[diesel(table_name = voice_call_changes, check_for_backend(Pg))]
pub(super) struct ChangeRow {
    pub(super) revision: Revision,
    pub(super) stamp: i64,
    changed_at: Timestamp,
    kind: KindWord,
    actor: Option<String>,
    request_id: Option<Uuid>,
    transaction_end: bool,
    old_values: Option<Value>,
    uid: Uuid,
    #[diesel(embed)]
    state: StateColumns,
}

impl ChangeRow {
    /// The entry as a change; the states of a purged call are gone.
    pub(super) fn into_change(self) -> Change {
        let after = self.state.into_call(self.uid, self.revision);
        let before = match (&after, &self.old_values) {
            (Some(after), Some(old)) => Some(with_old_values(after.clone(), old)),
            _ => None,
        };
        Change {
            revision: self.revision,
            kind: self.kind.0,
            uid: self.uid,
            before: before.map(Arc::new),
            after: after.map(Arc::new),
            actor: self.actor.map(Into::into),
            request_id: self.request_id,
            transaction_end: self.transaction_end,
            changed_at: self.changed_at,
        }
    }
}

impl From<CallRow> for Call {
    fn from(row: CallRow) -> Self {
        // Every name is written as a shorthand, so that no field can be taken for another.
        let CallRow {
            uid,
            duration,
            created_at,
            updated_at,
            status,
            direction,
            staff_uid,
            client_uid,
            from_number,
            to_number,
            recording_url,
            call_summary,
            external_app_url,
            handled_by_staff_uid,
            handled_at,
            deleted_at,
            revision,
        } = row;
        Self {
            uid,
            created_at,
            updated_at,
            deleted_at,
            attributes: Attributes {
                duration,
                status,
                direction,
                staff_uid,
                client_uid,
                from_number,
                to_number,
                recording_url,
                call_summary,
                external_app_url,
                handled_by_staff_uid,
                handled_at,
            },
            revision,
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
