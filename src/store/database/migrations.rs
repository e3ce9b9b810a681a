//! Brings the database to this release's schema: the migrations are in the
//! binary, and run under a lock, so that only one of the replicas that start together runs
//! them.

use std::{collections::HashSet, error::Error, time::Duration};

use diesel::{
    migration::{Migration, MigrationSource, MigrationVersion},
    pg::Pg,
};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::time::{sleep, timeout};
use tracing::info;

use super::{
    connector::Connector,
    lock::Lock,
    role::Role,
    session::{Session, breaks_connection},
    text_keys,
};
use crate::store::error::OpenError;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

/// The lock is looked for again and again, because no limit on a statement is right for how
/// long another process migrates.
const LOOK_FOR_LOCK_EVERY: Duration = Duration::from_millis(200);
/// Between two lines in the log about migrations that are not done.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Runs the migrations that are missing, and returns how many there were. Indexes that a
/// new release of PostgreSQL has made wrong are built anew.
///
/// # Errors
/// [`OpenError`]: the database is unavailable, a migration failed, or the database is
/// newer than this release, or from before the first.
pub async fn migrate(connector: &Connector) -> Result<usize, OpenError> {
    let run = with_harness(connector, |harness| {
        refuse_unknown(harness)?;
        let versions = harness.run_pending_migrations(MIGRATIONS);
        let versions: Vec<String> = versions
            .map_err(|error| failed(&*error))?
            .iter()
            .map(ToString::to_string)
            .collect();
        // The commit of a transaction that has failed is a rollback, and no error.
        refuse_missing(harness)?;
        for version in &versions {
            info!(%version, "migrated the database");
        }
        Ok(versions.len())
    })
    .await?;
    text_keys::mend(connector).await?;
    Ok(run)
}

/// Makes sure that no migration is missing, and that the indexes are right.
///
/// # Errors
/// [`OpenError`]: as [`migrate`], or [`OpenError::NotMigrated`] or
/// [`OpenError::StaleIndexes`].
pub async fn check(connector: &Connector) -> Result<(), OpenError> {
    with_harness(connector, |harness| {
        refuse_unknown(harness)?;
        refuse_missing(harness)
    })
    .await?;
    text_keys::check(connector).await
}

fn refuse_missing(harness: &mut AsyncMigrationHarness<AsyncPgConnection>) -> Result<(), OpenError> {
    let pending = harness.pending_migrations(MIGRATIONS);
    match pending.map_err(|error| failed(&*error))?.len() {
        0 => Ok(()),
        missing => Err(OpenError::NotMigrated(missing)),
    }
}

/// Refuses a database with migrations that are not ours. One that is earlier than all of ours
/// is from before the first release, whose migrations replaced the earlier ones; any other is
/// from a newer release.
fn refuse_unknown(harness: &mut AsyncMigrationHarness<AsyncPgConnection>) -> Result<(), OpenError> {
    let ours: Vec<Box<dyn Migration<Pg>>> =
        MIGRATIONS.migrations().map_err(|error| failed(&*error))?;
    let known: HashSet<MigrationVersion<'_>> = ours.iter().map(|m| m.name().version()).collect();
    let applied = harness
        .applied_migrations()
        .map_err(|error| failed(&*error))?;
    let unknown = applied.iter().filter(|version| !known.contains(*version));
    let Some(version) = unknown.min() else {
        return Ok(());
    };
    if known.iter().all(|ours| version < ours) {
        return Err(OpenError::PrereleaseDatabase(version.to_string()));
    }
    Err(OpenError::NewerDatabase(version.to_string()))
}

/// Why a migration did not run: the connection broke, and it is tried again, or it failed.
fn failed(error: &(dyn Error + Send + Sync + 'static)) -> OpenError {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error
            .downcast_ref::<diesel::result::Error>()
            .is_some_and(breaks_connection)
        {
            return OpenError::Connect(error.to_string());
        }
        source = error.source();
    }
    OpenError::Migrate(error.to_string())
}

/// Runs `work`, which blocks, on a session that holds the lock. The lock goes
/// with the session.
async fn with_harness<T: Send + 'static>(
    connector: &Connector,
    work: impl FnOnce(&mut AsyncMigrationHarness<AsyncPgConnection>) -> Result<T, OpenError>
    + Send
    + 'static,
) -> Result<T, OpenError> {
    let session = connector.connect(Role::Maintain).await?;
    wait_for_lock(&session).await?;
    // Migrations take as long as the tables are large.
    let unlimited = session.batch("SET statement_timeout = 0; SET lock_timeout = 0");
    unlimited.await.map_err(|error| lost(&error))?;
    let mut migrations = session.into_migrations();
    let mut working = tokio::task::spawn_blocking(move || work(&mut migrations.harness));
    loop {
        match timeout(SAY_EVERY, &mut working).await {
            Ok(done) => return done.map_err(|error| OpenError::Migrate(error.to_string()))?,
            Err(_) => info!(
                "still checking or running migrations: they take long or wait for a lock; see \
                 pg_stat_activity and pg_locks"
            ),
        }
    }
}

/// Waits until the session has the lock for migrations.
pub(super) async fn wait_for_lock(session: &Session) -> Result<(), OpenError> {
    let mut waits = false;
    let take = async || {
        let taken = Lock::Migrations.try_take(session).await;
        taken.map_err(|error| lost(&error))
    };
    while !take().await? {
        if !waits {
            info!("another process is migrating the database; waiting for it");
            waits = true;
        }
        sleep(LOOK_FOR_LOCK_EVERY).await;
    }
    Ok(())
}

/// A session that broke before it did anything counts as one that could not be opened.
fn lost(error: &diesel::result::Error) -> OpenError {
    OpenError::Connect(error.to_string())
}
