//! Whether texts still have the hashes that the indexes by text were built with, and the REINDEX
//! if not. A release of PostgreSQL that hashes differently would find nothing in indexes that
//! pg_upgrade has kept; `text_key_sample` has one hash that was kept with them.

use diesel::{QueryResult, QueryableByName, sql_query, sql_types::Bool};
use tracing::{info, warn};

use super::{connector::Connector, migrations, role::Role, session::Session};
use crate::store::error::OpenError;

/// The same as in the migration that made the sample.
const SAMPLE: &str = "The quick brown fox jumps over the lazy dog";
const INDEXES: [&str; 5] = [
    "voice_calls_by_staff",
    "voice_calls_by_handler",
    "voice_calls_by_client",
    "voice_calls_by_from_number",
    "voice_calls_by_to_number",
];

/// Makes sure that the indexes are right.
pub(super) async fn check(connector: &Connector) -> Result<(), OpenError> {
    let session = connector.connect(Role::Maintain).await?;
    if are_kept(&session).await.map_err(|error| lost(&error))? {
        Ok(())
    } else {
        Err(OpenError::StaleIndexes(INDEXES.join(", ")))
    }
}

/// Builds the indexes anew if they are not right. Nobody writes to their table meanwhile.
pub(super) async fn mend(connector: &Connector) -> Result<(), OpenError> {
    let Err(error) = check(connector).await else {
        return Ok(());
    };
    let OpenError::StaleIndexes(indexes) = error else {
        return Err(error);
    };
    let session = connector.connect(Role::Vacuum).await?;
    migrations::wait_for_lock(&session).await?;
    if are_kept(&session).await.map_err(|error| lost(&error))? {
        return Ok(());
    }
    warn!(
        "this PostgreSQL release hashes texts differently from the last one; rebuilding {indexes}"
    );
    // All of it or nothing: what is sent at once is one transaction.
    let mut sql: String = INDEXES
        .map(|index| format!("REINDEX INDEX {index}; "))
        .concat();
    sql.push_str(&format!(
        "DELETE FROM text_key_sample; INSERT INTO text_key_sample (text) VALUES ('{SAMPLE}')"
    ));
    session.batch(&sql).await.map_err(|error| lost(&error))?;
    info!("rebuilt the indexes");
    Ok(())
}

#[derive(QueryableByName)]
struct Kept {
    #[diesel(sql_type = Bool)]
    kept: bool,
}

async fn are_kept(session: &Session) -> QueryResult<bool> {
    let query = format!(
        "SELECT EXISTS (SELECT FROM text_key_sample \
         WHERE text_key = hashtextextended('{SAMPLE}', 0)) AS kept"
    );
    let row: Kept = session.row(sql_query(query)).await?;
    Ok(row.kept)
}

/// What fails here is tried again.
fn lost(error: &diesel::result::Error) -> OpenError {
    OpenError::Connect(error.to_string())
}
