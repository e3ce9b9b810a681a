//! What the database's planner knows of the calls.

use tokio::time::Instant;

use crate::store::{
    database::{Pool, Session},
    error::ReadError,
};

/// Refreshes it.
pub(crate) async fn calls(pool: &Pool, deadline: Instant) -> Result<(), ReadError> {
    pool.run(deadline, async |session: &Session| {
        session.batch("ANALYZE voice_calls").await
    })
    .await
}
