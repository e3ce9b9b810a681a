//! The domain's values as SQL values, and as JSON for the old values of a change. What the
//! database holds was checked on its way in, and is not checked again.

use diesel::{
    data_types::PgTimestamp,
    deserialize::{self, FromSql, Queryable},
    pg::{Pg, PgValue},
    serialize::{self, Output, ToSql},
    sql_types::{Integer, Text, Timestamptz},
};
use serde_json::Value;

use super::schema::sql_types::{VoiceCallDirection, VoiceCallStatus};
use crate::domain::{
    Direction, Identifier, PendingTime, PhoneNumber, Seconds, Status, Summary, Timestamp, Url,
};

/// Microseconds from 1970, where our times begin, to 2000, where PostgreSQL's do.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The time as PostgreSQL has it.
pub(super) fn to_sql_time(time: Timestamp) -> PgTimestamp {
    PgTimestamp(time.micros() - POSTGRES_EPOCH_MICROS)
}

/// The time as the domain has it; what lies outside its range is brought in.
pub(super) fn from_sql_time(PgTimestamp(micros): PgTimestamp) -> Timestamp {
    Timestamp::clamped(micros.saturating_add(POSTGRES_EPOCH_MICROS))
}

impl FromSql<Timestamptz, Pg> for Timestamp {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        FromSql::<Timestamptz, Pg>::from_sql(value).map(from_sql_time)
    }
}

/// As the commit function takes it: `infinity` becomes the time of the commit.
impl ToSql<Timestamptz, Pg> for PendingTime {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let time = match self {
            Self::Known(time) => to_sql_time(*time),
            Self::AtCommit => PgTimestamp(i64::MAX),
        };
        ToSql::<Timestamptz, Pg>::to_sql(&time, &mut out.reborrow())
    }
}

impl FromSql<Integer, Pg> for Seconds {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        FromSql::<Integer, Pg>::from_sql(value).map(Self::clamped)
    }
}

impl ToSql<Integer, Pg> for Seconds {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Integer, Pg>::to_sql(&self.get(), &mut out.reborrow())
    }
}

/// A value as the old values of a change have it.
pub(super) trait JsonValue: Sized {
    fn to_json(&self) -> Value;

    /// The value; `None` for null.
    fn from_json(value: &Value) -> Option<Self>;
}

/// Microseconds since 1970.
impl JsonValue for Timestamp {
    fn to_json(&self) -> Value {
        self.micros().into()
    }

    fn from_json(value: &Value) -> Option<Self> {
        value.as_i64().map(Self::clamped)
    }
}

impl JsonValue for Seconds {
    fn to_json(&self) -> Value {
        self.get().into()
    }

    fn from_json(value: &Value) -> Option<Self> {
        i32::try_from(value.as_i64()?).ok().and_then(Self::new)
    }
}

/// Enums travel as their words.
macro_rules! words {
    ($($type:ty: $sql_type:ty),* $(,)?) => {$(
        impl FromSql<$sql_type, Pg> for $type {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                Ok(Self::from_word(std::str::from_utf8(value.as_bytes())?))
            }
        }

        impl ToSql<Text, Pg> for $type {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                ToSql::<Text, Pg>::to_sql(self.word(), out)
            }
        }

        impl JsonValue for $type {
            fn to_json(&self) -> Value {
                self.word().into()
            }

            fn from_json(value: &Value) -> Option<Self> {
                value.as_str().map(Self::from_word)
            }
        }
    )*};
}

words! {
    Status: VoiceCallStatus,
    Direction: VoiceCallDirection,
}

/// Strings with rules travel as text.
macro_rules! texts {
    ($($type:ty),* $(,)?) => {$(
        impl FromSql<Text, Pg> for $type {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                FromSql::<Text, Pg>::from_sql(value).map(Self::assume_valid)
            }
        }

        impl ToSql<Text, Pg> for $type {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                ToSql::<Text, Pg>::to_sql(self.as_str(), out)
            }
        }

        impl JsonValue for $type {
            fn to_json(&self) -> Value {
                self.as_str().into()
            }

            fn from_json(value: &Value) -> Option<Self> {
                value.as_str().map(|text| Self::assume_valid(text.to_owned()))
            }
        }
    )*};
}

texts!(Identifier, PhoneNumber, Url, Summary);

/// Lets the types be columns of a row, as `derive(FromSqlRow)` does for types of the store's
/// own.
macro_rules! columns {
    ($($type:ty: $sql_type:ty),* $(,)?) => {$(
        impl Queryable<$sql_type, Pg> for $type {
            type Row = Self;

            fn build(value: Self) -> deserialize::Result<Self> {
                Ok(value)
            }
        }
    )*};
}

columns! {
    Timestamp: Timestamptz,
    Seconds: Integer,
    Status: VoiceCallStatus,
    Direction: VoiceCallDirection,
    Identifier: Text,
    PhoneNumber: Text,
    Url: Text,
    Summary: Text,
}
