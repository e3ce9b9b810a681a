//! The columns of a call, in one list: the rows that are read, the arrays that are committed
//! and the old values of a change are made from it, so that they cannot disagree.

use crate::domain::{Attributes, Call, Direction, PendingCall, PendingTime, Status, Timestamp};

/// Hands the list to the macro `$generate`, with `$Time` for the type of the times.
///
/// It has every column but `uid` and `revision`, in the order of the tables. A line names
///
/// - the part of the call that has the field, and the field, which has the name of the column,
/// - its type: an `Option` is null where there is no value, and the others are null in the
///   change log alone, where the call was purged,
/// - the parameter of `commit_batch_v1` that takes an array of it, and the type of its elements.
///
/// With
///
/// ```text
/// macro_rules! state {
///     ($($part:ident.$column:ident: $type:ty => $parameter:literal $sql_type:ty,)*) => {
///         struct State { $($column: $type,)* }
///     };
/// }
/// call_columns!(state, Timestamp);
/// ```
///
/// there is
///
/// ```text
/// struct State {
///     duration: Option<Seconds>,
///     created_at: Timestamp,
///     // …
///     deleted_at: Option<Timestamp>,
/// }
/// ```
macro_rules! call_columns {
    ($generate:ident, $Time:ident) => {
        $generate! {
            attributes.duration: Option<Seconds> => "p_durations" Integer,
            call.created_at: $Time => "p_created_ats" Timestamptz,
            call.updated_at: $Time => "p_updated_ats" Timestamptz,
            attributes.status: Status => "p_statuses" Text,
            attributes.direction: Direction => "p_directions" Text,
            attributes.staff_uid: Option<Identifier> => "p_staff_uids" Text,
            attributes.client_uid: Option<Identifier> => "p_client_uids" Text,
            attributes.from_number: Option<PhoneNumber> => "p_from_numbers" Text,
            attributes.to_number: Option<PhoneNumber> => "p_to_numbers" Text,
            attributes.recording_url: Option<Url> => "p_recording_urls" Text,
            attributes.call_summary: Option<Summary> => "p_call_summaries" Text,
            attributes.external_app_url: Option<Url> => "p_external_app_urls" Text,
            attributes.handled_by_staff_uid: Option<Identifier>
                => "p_handled_by_staff_uids" Text,
            attributes.handled_at: Option<$Time> => "p_handled_ats" Timestamptz,
            call.deleted_at: Option<$Time> => "p_deleted_ats" Timestamptz,
        }
    };
}

pub(super) use call_columns;

/// A call in the parts that have its fields, by the names that the list has for them.
pub(super) struct Parts<'a, C, T> {
    pub(super) call: &'a C,
    pub(super) attributes: &'a Attributes<T>,
}

impl<'a> From<&'a Call> for Parts<'a, Call, Timestamp> {
    fn from(call: &'a Call) -> Self {
        let attributes = &call.attributes;
        Self { call, attributes }
    }
}

impl<'a> From<&'a PendingCall> for Parts<'a, PendingCall, PendingTime> {
    fn from(call: &'a PendingCall) -> Self {
        let attributes = &call.attributes;
        Self { call, attributes }
    }
}

/// A field of a call, as a column that may be null has it.
pub(super) trait ColumnField: Sized {
    /// What a column that is not null holds.
    type Value;

    /// What the column holds.
    fn value(&self) -> Option<&Self::Value>;

    /// The field; `None` if it must have a value and the column is null.
    fn from_value(value: Option<Self::Value>) -> Option<Self>;
}

impl<T> ColumnField for Option<T> {
    type Value = T;

    fn value(&self) -> Option<&T> {
        self.as_ref()
    }

    fn from_value(value: Option<T>) -> Option<Self> {
        Some(value)
    }
}

/// Fields that always have a value.
macro_rules! required {
    ($($type:ty),*) => {$(
        impl ColumnField for $type {
            type Value = Self;

            fn value(&self) -> Option<&Self> {
                Some(self)
            }

            fn from_value(value: Option<Self>) -> Option<Self> {
                value
            }
        }
    )*};
}

required!(Timestamp, PendingTime, Status, Direction);

#[cfg(test)]
mod tests {
    use crate::domain::Field;

    macro_rules! names {
        ($($part:ident.$column:ident: $type:ty => $parameter:literal $sql_type:ty,)*) => {
            [$((stringify!($column), $parameter)),*]
        };
    }

    #[test]
    fn every_field_has_a_column_and_the_parameter_of_its_name() {
        let list = call_columns!(names, Timestamp);
        let columns = list.map(|(column, _)| column);
        let fields = Field::ALL.map(Field::name);
        assert_eq!(
            [&["uid"], columns.as_slice(), &["revision"]].concat(),
            fields
        );
        for (column, parameter) in list {
            // All but the last letter, which is another in some plurals.
            let stem = format!("p_{}", &column[..column.len() - 1]);
            assert!(parameter.starts_with(&stem), "{column} is {parameter}");
        }
    }
}
