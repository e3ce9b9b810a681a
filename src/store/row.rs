//! Rows to calls and changes, and the old values of a change.

use std::sync::Arc;

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    pg::{Pg, PgValue},
    prelude::{Queryable, Selectable},
};
use serde_json::{Map, Value};

use super::{
    columns::{ColumnField, Parts, call_columns},
    schema::{sql_types::VoiceCallChangeKind, voice_call_changes, voice_calls},
    values::JsonValue,
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
        #[derive(Clone, Queryable, Selectable)]
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
            fn into_row(self, uid: Uuid, revision: Revision) -> Option<CallRow> {
                Some(CallRow {
                    uid,
                    $($column: ColumnField::from_value(self.$column)?,)*
                    revision,
                })
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
        let after = self.state.into_row(self.uid, self.revision);
        let before = match (&after, &self.old_values) {
            (Some(after), Some(Value::Object(old))) => Some(after.clone().with_old_values(old)),
            _ => None,
        };
        Change {
            revision: self.revision,
            kind: self.kind.0,
            uid: self.uid,
            before: before.map(|row| Arc::new(row.into())),
            after: after.map(|row| Arc::new(row.into())),
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
/// object by field name.
pub(super) fn old_values(before: &Call, after: &PendingCall) -> String {
    let fields = after.changed_fields(before);
    let object: Map<String, Value> = fields
        .iter()
        .map(|field| (field.name().to_owned(), old_value(before, field)))
        .collect();
    Value::Object(object).to_string()
}

/// Writes and reads the old value of each column.
macro_rules! old_value {
    ($($part:ident.$column:ident: $type:ty => $parameter:literal $sql_type:ty,)*) => {
        fn old_value(before: &Call, field: Field) -> Value {
            let parts = Parts::from(before);
            match field.name() {
                $(stringify!($column) => to_json(parts.$part.$column.value()),)*
                "revision" => before.revision.into(),
                // The uid, which no change changes.
                _ => Value::Null,
            }
        }

        impl CallRow {
            /// The state before a change, of which this is the state after it.
            fn with_old_values(mut self, old_values: &Map<String, Value>) -> Self {
                for (name, value) in old_values {
                    match name.as_str() {
                        $(stringify!($column) => {
                            let value = JsonValue::from_json(value);
                            self.$column = <$type>::from_value(value).unwrap_or(self.$column);
                        })*
                        "revision" => self.revision = value.as_i64().unwrap_or(self.revision),
                        _ => {}
                    }
                }
                self
            }
        }
    };
}

call_columns!(old_value, Timestamp);

fn to_json(value: Option<&impl JsonValue>) -> Value {
    value.map_or(Value::Null, JsonValue::to_json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PendingTime;

    fn row(revision: Revision, text: &str) -> CallRow {
        let text = || text.to_owned();
        let time = |micros| Timestamp::clamped(revision * 1000 + micros);
        CallRow {
            uid: Uuid::nil(),
            duration: Seconds::new(7),
            created_at: time(1),
            updated_at: time(2),
            status: Status::from_word(&text()),
            direction: Direction::from_word(&text()),
            staff_uid: Some(Identifier::assume_valid(text() + "1")),
            client_uid: Some(Identifier::assume_valid(text() + "2")),
            from_number: Some(PhoneNumber::assume_valid(text() + "3")),
            to_number: Some(PhoneNumber::assume_valid(text() + "4")),
            recording_url: Some(Url::assume_valid(text() + "5")),
            call_summary: Some(Summary::assume_valid(text() + "6")),
            external_app_url: Some(Url::assume_valid(text() + "7")),
            handled_by_staff_uid: Some(Identifier::assume_valid(text() + "8")),
            handled_at: Some(time(3)),
            deleted_at: Some(time(4)),
            revision,
        }
    }

    fn pending(call: Call) -> PendingCall {
        PendingCall {
            uid: call.uid,
            created_at: PendingTime::Known(call.created_at),
            updated_at: PendingTime::Known(call.updated_at),
            deleted_at: call.deleted_at.map(PendingTime::Known),
            attributes: call.attributes.into(),
        }
    }

    #[test]
    fn old_values_make_the_state_before_of_the_state_after() {
        let full = row(1, "old");
        let other = CallRow {
            duration: Seconds::new(8),
            ..row(2, "new")
        };
        let empty = CallRow {
            duration: None,
            staff_uid: None,
            client_uid: None,
            from_number: None,
            to_number: None,
            recording_url: None,
            call_summary: None,
            external_app_url: None,
            handled_by_staff_uid: None,
            handled_at: None,
            deleted_at: None,
            ..row(3, "none")
        };
        for (before, after) in [(&full, &other), (&full, &empty), (&empty, &full)] {
            let before = Call::from(before.clone());
            let written = old_values(&before, &pending(after.clone().into()));
            let old: Map<String, Value> = serde_json::from_str(&written).expect("an object");
            // All fields but the uid.
            assert_eq!(old.len(), Field::ALL.len() - 1, "{written}");
            assert_eq!(Call::from(after.clone().with_old_values(&old)), before);
        }
        let unchanged = old_values(&full.clone().into(), &pending(full.into()));
        assert_eq!(unchanged, r#"{"revision":1}"#);
    }
}
