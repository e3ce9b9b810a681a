//! What no session can change of a database and its server, and we rely on: an encoding that
//! holds every text, and settings that do not let it lose what it has committed.

use diesel::{QueryableByName, sql_query, sql_types::Text};
use tracing::warn;

use super::{connector::Connector, role::Role};
use crate::store::error::OpenError;

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Refuses a database in another encoding than UTF-8, and says which settings make
/// acknowledged writes less than durable.
pub(in crate::store) async fn check(connector: &Connector) -> Result<(), OpenError> {
    let session = connector.connect(Role::Maintain).await?;
    let encoding: Result<Setting, _> = session
        .row(sql_query(
            "SELECT pg_encoding_to_char(encoding)::text AS name FROM pg_database \
             WHERE datname = current_database()",
        ))
        .await;
    let encoding = encoding.map_err(|error| OpenError::Connect(error.to_string()))?;
    if encoding.name != "UTF8" {
        return Err(OpenError::Encoding(encoding.name));
    }
    let query = sql_query(
        "SELECT name::text FROM pg_settings \
         WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'",
    );
    let settings: Result<Vec<Setting>, _> = session.rows(query).await;
    for Setting { name } in settings.map_err(|error| OpenError::Connect(error.to_string()))? {
        warn!(
            "the database runs with {name} = off: a crash of its machine may lose acknowledged \
             writes and damage the database"
        );
    }
    Ok(())
}
