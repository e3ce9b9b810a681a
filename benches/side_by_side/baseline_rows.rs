//! The table of calls as it is usually mapped in diesel, for the baseline.

use std::io::Write;

use diesel::{
    data_types::PgTimestamp,
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    prelude::{AsChangeset, Insertable, Queryable, Selectable},
    serialize::{self, IsNull, Output, ToSql},
};
use prost_types::Timestamp;
use uuid::Uuid;
use voicecall::proto::{VoiceCall, VoiceCallDirection, VoiceCallStatus};

mod sql_types {
    #[derive(diesel::sql_types::SqlType)]
    #[diesel(postgres_type(name = "voice_call_status"))]
    pub struct Status;

    #[derive(diesel::sql_types::SqlType)]
    #[diesel(postgres_type(name = "voice_call_direction"))]
    pub struct Direction;
}

diesel::table! {
    use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid};
    use super::sql_types::{Direction, Status};

    voice_calls (uid) {
        uid -> Uuid,
        duration -> Nullable<Integer>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        status -> Status,
        direction -> Direction,
        staff_uid -> Nullable<Text>,
        client_uid -> Nullable<Text>,
        from_number -> Nullable<Text>,
        to_number -> Nullable<Text>,
        recording_url -> Nullable<Text>,
        call_summary -> Nullable<Text>,
        external_app_url -> Nullable<Text>,
        handled_by_staff_uid -> Nullable<Text>,
        handled_at -> Nullable<Timestamptz>,
        deleted_at -> Nullable<Timestamptz>,
        revision -> BigInt,
    }
}

#[derive(Debug, Clone, Copy, FromSqlRow, AsExpression)]
#[diesel(sql_type = sql_types::Status)]
pub(crate) struct StatusWord(VoiceCallStatus);

#[derive(Debug, Clone, Copy, FromSqlRow, AsExpression)]
#[diesel(sql_type = sql_types::Direction)]
pub(crate) struct DirectionWord(VoiceCallDirection);

impl From<VoiceCallStatus> for StatusWord {
    fn from(status: VoiceCallStatus) -> Self {
        Self(status)
    }
}

impl ToSql<sql_types::Status, Pg> for StatusWord {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(match self.0 {
            VoiceCallStatus::AnsweredByStaff => b"answered by staff",
            VoiceCallStatus::Missed => b"missed",
            VoiceCallStatus::AnsweredByVonage => b"answered by vonage",
            _ => b"incoming call",
        })?;
        Ok(IsNull::No)
    }
}

impl FromSql<sql_types::Status, Pg> for StatusWord {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(match value.as_bytes() {
            b"incoming call" => VoiceCallStatus::IncomingCall,
            b"answered by staff" => VoiceCallStatus::AnsweredByStaff,
            b"missed" => VoiceCallStatus::Missed,
            b"answered by vonage" => VoiceCallStatus::AnsweredByVonage,
            _ => return Err("an unknown status".into()),
        }))
    }
}

impl ToSql<sql_types::Direction, Pg> for DirectionWord {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(match self.0 {
            VoiceCallDirection::Outbound => b"outbound",
            _ => b"inbound",
        })?;
        Ok(IsNull::No)
    }
}

impl FromSql<sql_types::Direction, Pg> for DirectionWord {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(match value.as_bytes() {
            b"inbound" => VoiceCallDirection::Inbound,
            b"outbound" => VoiceCallDirection::Outbound,
            _ => return Err("an unknown direction".into()),
        }))
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = voice_calls, check_for_backend(Pg))]
pub(crate) struct CallRow {
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

/// The columns that an update sets.
#[derive(AsChangeset)]
#[diesel(table_name = voice_calls)]
pub(crate) struct Changes {
    pub(crate) duration: Option<i32>,
    pub(crate) status: Option<StatusWord>,
    pub(crate) updated_at: PgTimestamp,
}

/// Seconds from 1970 to 2000, where PostgreSQL's times begin.
const EPOCH: i64 = 946_684_800;

pub(crate) fn now() -> PgTimestamp {
    to_sql(std::time::SystemTime::now().into())
}

fn to_sql(time: Timestamp) -> PgTimestamp {
    PgTimestamp((time.seconds - EPOCH) * 1_000_000 + i64::from(time.nanos) / 1_000)
}

fn from_sql(time: PgTimestamp) -> Timestamp {
    Timestamp {
        seconds: time.0.div_euclid(1_000_000) + EPOCH,
        nanos: i32::try_from(time.0.rem_euclid(1_000_000) * 1_000).unwrap_or_default(),
    }
}

/// A call to create.
impl From<VoiceCall> for CallRow {
    fn from(call: VoiceCall) -> Self {
        Self {
            uid: Uuid::now_v7(),
            duration: call.duration,
            created_at: now(),
            updated_at: now(),
            status: StatusWord(call.status()),
            direction: DirectionWord(call.direction()),
            staff_uid: call.staff_uid,
            client_uid: call.client_uid,
            from_number: call.from_number,
            to_number: call.to_number,
            recording_url: call.recording_url,
            call_summary: call.call_summary,
            external_app_url: call.external_app_url,
            handled_by_staff_uid: call.handled_by_staff_uid,
            handled_at: call.handled_at.map(to_sql),
            deleted_at: None,
            revision: 1,
        }
    }
}

impl From<CallRow> for VoiceCall {
    fn from(row: CallRow) -> Self {
        Self {
            uid: row.uid.to_string(),
            duration: row.duration,
            created_at: Some(from_sql(row.created_at)),
            updated_at: Some(from_sql(row.updated_at)),
            status: row.status.0.into(),
            direction: row.direction.0.into(),
            staff_uid: row.staff_uid,
            client_uid: row.client_uid,
            from_number: row.from_number,
            to_number: row.to_number,
            recording_url: row.recording_url,
            call_summary: row.call_summary,
            external_app_url: row.external_app_url,
            handled_by_staff_uid: row.handled_by_staff_uid,
            handled_at: row.handled_at.map(from_sql),
            deleted_at: row.deleted_at.map(from_sql),
            revision: row.revision,
        }
    }
}
