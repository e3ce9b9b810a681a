//! Brings the database to this release's schema: the migrations are in the
//! binary, and run under a lock so that replicas that start together do not
//! meet.

use std::collections::HashSet;

use diesel::migration::{Migration, MigrationSource, MigrationVersion};
use diesel::pg::Pg;
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tracing::info;

use super::{
    connection::{Connector, Role},
    error::OpenError,
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

/// Held while migrating; the number means nothing elsewhere.
const LOCK: &str = "SELECT pg_advisory_lock(8642101, 2)";

/// Runs the migrations that are missing, and answers how many there were.
///
/// # Errors
/// [`OpenError`]: the database is away, a migration failed, or the database is
/// newer than this release.
pub async fn migrate(connector: &Connector) -> Result<usize, OpenError> {
    with_harness(connector, |harness| {
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| OpenError::Migrate(error.to_string());
        refuse_newer(harness)?;
        let versions = harness.run_pending_migrations(MIGRATIONS).map_err(failed)?;
        for version in &versions {
            info!(%version, "migrated the database");
        }
        Ok(versions.len())
    })
    .await
}

/// Makes sure that no migration is missing.
///
/// # Errors
/// [`OpenError`]: as [`migrate`], or [`OpenError::NotMigrated`].
pub async fn check(connector: &Connector) -> Result<(), OpenError> {
    with_harness(connector, |harness| {
        refuse_newer(harness)?;
        let pending = harness
            .pending_migrations(MIGRATIONS)
            .map_err(|error| OpenError::Migrate(error.to_string()))?;
        match pending.len() {
            0 => Ok(()),
            missing => Err(OpenError::NotMigrated(missing)),
        }
    })
    .await
}

fn refuse_newer(harness: &mut AsyncMigrationHarness<AsyncPgConnection>) -> Result<(), OpenError> {
    let failed =
        |error: Box<dyn std::error::Error + Send + Sync>| OpenError::Migrate(error.to_string());
    let ours: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS.migrations().map_err(failed)?;
    let known: HashSet<MigrationVersion<'_>> = ours.iter().map(|m| m.name().version()).collect();
    let applied = harness.applied_migrations().map_err(failed)?;
    match applied.iter().find(|version| !known.contains(*version)) {
        Some(version) => Err(OpenError::NewerDatabase(version.to_string())),
        None => Ok(()),
    }
}

/// Runs `work`, which blocks, on a connection that holds the lock. The lock goes
/// with the connection.
async fn with_harness<T: Send + 'static>(
    connector: &Connector,
    work: impl FnOnce(&mut AsyncMigrationHarness<AsyncPgConnection>) -> Result<T, OpenError>
    + Send
    + 'static,
) -> Result<T, OpenError> {
    let mut connection = connector.connect(Role::Maintain).await?;
    connection
        .batch_execute(&format!(
            "SET lock_timeout = 0; {LOCK}; SET lock_timeout = '10s'"
        ))
        .await
        .map_err(|error| OpenError::Migrate(error.to_string()))?;
    let mut harness = AsyncMigrationHarness::new(connection);
    tokio::task::spawn_blocking(move || work(&mut harness))
        .await
        .map_err(|error| OpenError::Migrate(error.to_string()))?
}
