//! The baseline: the service as it is usually written with tonic and diesel-async. Each request
//! uses a connection of a pool, and each write is a transaction of its own. There is no change
//! log, no idempotency record, and no batch.

use diesel::{ExpressionMethods, QueryDsl, SelectableHelper};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, RunQueryDsl,
    pooled_connection::{AsyncDieselConnectionManager, deadpool},
};
use http::Request;
use tonic::{Status, body::Body};
use uuid::Uuid;
use voicecall::proto;

use crate::{
    Result,
    bare::{self, Answer, Routes},
    baseline_rows::{CallRow, Changes, StatusWord, now, voice_calls},
};

/// Connections in the pool.
const CONNECTIONS: usize = 16;

/// The indexes that its lists read, as they are usually made.
pub(crate) const INDEXES: &str = "
DROP INDEX voice_calls_by_staff, voice_calls_by_client, voice_calls_by_from_number,
    voice_calls_by_to_number;
CREATE INDEX ON voice_calls (staff_uid, created_at, uid);
CREATE INDEX ON voice_calls (client_uid, created_at, uid);
CREATE INDEX ON voice_calls (from_number, created_at, uid);
CREATE INDEX ON voice_calls (to_number, created_at, uid);
";

/// Serves until the process is killed.
pub(crate) async fn serve(database_url: &str) -> Result<()> {
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(database_url);
    let pool = deadpool::Pool::builder(manager)
        .max_size(CONNECTIONS)
        .build()?;
    bare::serve(Baseline(pool)).await
}

#[derive(Clone)]
struct Baseline(deadpool::Pool<AsyncPgConnection>);

impl Routes for Baseline {
    fn route(&self, method: &str, request: Request<Body>) -> Answer {
        let service = self.clone();
        match method {
            "CreateVoiceCall" => bare::unary(request, move |q| service.clone().create(q)),
            "GetVoiceCall" => bare::unary(request, move |q| service.clone().get(q)),
            "UpdateVoiceCall" => bare::unary(request, move |q| service.clone().update(q)),
            "ListVoiceCalls" => bare::unary(request, move |q| service.clone().list(q)),
            _ => bare::unimplemented(),
        }
    }
}

impl Baseline {
    async fn connection(&self) -> Result<deadpool::Object<AsyncPgConnection>, Status> {
        self.0.get().await.map_err(internal)
    }

    async fn create(
        self,
        request: proto::CreateVoiceCallRequest,
    ) -> Result<proto::CreateVoiceCallResponse, Status> {
        let call = request.voice_call.unwrap_or_default();
        let row = CallRow::from(call);
        let mut connection = self.connection().await?;
        let created: CallRow = connection
            .transaction(async |connection| {
                diesel::insert_into(voice_calls::table)
                    .values(&row)
                    .returning(CallRow::as_returning())
                    .get_result(connection)
                    .await
            })
            .await
            .map_err(internal)?;
        Ok(proto::CreateVoiceCallResponse {
            voice_call: Some(created.into()),
        })
    }

    async fn get(
        self,
        request: proto::GetVoiceCallRequest,
    ) -> Result<proto::GetVoiceCallResponse, Status> {
        let uid: Uuid = request.uid.parse().map_err(invalid)?;
        let mut connection = self.connection().await?;
        let row: CallRow = voice_calls::table
            .find(uid)
            .select(CallRow::as_select())
            .first(&mut connection)
            .await
            .map_err(not_found)?;
        Ok(proto::GetVoiceCallResponse {
            voice_call: Some(row.into()),
        })
    }

    async fn update(
        self,
        request: proto::UpdateVoiceCallRequest,
    ) -> Result<proto::UpdateVoiceCallResponse, Status> {
        let call = request.voice_call.unwrap_or_default();
        let uid: Uuid = call.uid.parse().map_err(invalid)?;
        let changes = Changes {
            duration: call.duration,
            status: (call.status != 0).then(|| StatusWord::from(call.status())),
            updated_at: now(),
        };
        let mut connection = self.connection().await?;
        let updated: CallRow = connection
            .transaction(async |connection| {
                diesel::update(voice_calls::table.find(uid))
                    .set(&changes)
                    .returning(CallRow::as_returning())
                    .get_result(connection)
                    .await
            })
            .await
            .map_err(not_found)?;
        Ok(proto::UpdateVoiceCallResponse {
            voice_call: Some(updated.into()),
        })
    }

    async fn list(
        self,
        request: proto::ListVoiceCallsRequest,
    ) -> Result<proto::ListVoiceCallsResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let staff = filter.staff_uids.into_iter().next().unwrap_or_default();
        let mut connection = self.connection().await?;
        let rows: Vec<CallRow> = voice_calls::table
            .filter(voice_calls::staff_uid.eq(staff))
            .filter(voice_calls::deleted_at.is_null())
            .order((voice_calls::created_at.desc(), voice_calls::uid.desc()))
            .limit(request.page_size.into())
            .select(CallRow::as_select())
            .load(&mut connection)
            .await
            .map_err(internal)?;
        Ok(proto::ListVoiceCallsResponse {
            voice_calls: rows.into_iter().map(Into::into).collect(),
            ..Default::default()
        })
    }
}

fn internal(error: impl std::error::Error) -> Status {
    Status::internal(error.to_string())
}

fn invalid(error: impl std::error::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

fn not_found(error: diesel::result::Error) -> Status {
    match error {
        diesel::result::Error::NotFound => Status::not_found("no such call"),
        other => internal(other),
    }
}
