//! Settings of the server, which no session can change, that let it lose what it has
//! committed. They are told at the start.

use diesel::{QueryableByName, sql_query, sql_types::Text};
use tracing::warn;

use super::{connector::Connector, role::Role};
use crate::store::error::OpenError;

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Says which settings make acknowledged writes less than durable.
pub(in crate::store) async fn tell(connector: &Connector) -> Result<(), OpenError> {
    let session = connector.connect(Role::Maintain).await?;
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
