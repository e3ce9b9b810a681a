//! A session with the database, and the only home of the driver.
//!
//! The driver's shortest ways lose errors: its `get_result` and `first` return at the first
//! row, but PostgreSQL commits only after it, so what goes wrong at the commit is never
//! seen. Here every statement is read to its end, has a limit on our side, and a session
//! that has met the limit is lost.
//!
//! The connection is driven by a task of our own, for what the driver throws away:
//! warnings, by which the database tells that a commit has not reached its standby, and
//! notifications, which wait in a queue that has a bound.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use diesel::{
    QueryResult,
    result::{DatabaseErrorKind, Error},
};
use diesel_async::{
    AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
    methods::{ExecuteDsl, LoadQuery},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::{
    sync::{Mutex, mpsc},
    task::AbortHandle,
    time::timeout,
};
use tokio_postgres::{
    AsyncMessage, CancelToken, Connection, SimpleQueryMessage, Socket, tls::TlsStream,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::role::Role;

/// Notifications that wait to be heard; each says the same.
const NOTIFICATIONS_LEN: usize = 16;
/// The part of PostgreSQL that warns with each transaction id from the last 40 million before
/// it refuses writes. It has no SQLSTATE of its own, and says nothing of the commit.
const GIVES_OUT_IDS: &str = "GetNewTransactionId";
/// How long a session may take to tell that it has survived an error.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// A session. It ends when it is dropped: its socket is closed at once, whatever the
/// database is doing.
pub(in crate::store) struct Session {
    connection: AsyncPgConnection,
    limit: Duration,
    seen: Arc<Seen>,
    notifications: Mutex<mpsc::Receiver<String>>,
    driver: AbortOnDropHandle<()>,
    /// Owns what the session has running.
    tasks: TaskTracker,
    cancel: CancelToken,
    tls: MakeRustlsConnect,
}

/// What has been seen of a session besides its answers.
#[derive(Debug, Default)]
struct Seen {
    warnings: AtomicU64,
    /// The connection has ended, or a statement met its limit.
    lost: AtomicBool,
}

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// Its settings were refused.
    #[error(transparent)]
    Settings(#[from] tokio_postgres::Error),
    /// The driver's settings were refused.
    #[error(transparent)]
    Driver(#[from] diesel::ConnectionError),
}

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum Failure {
    /// The database refused it, and the session lives: nothing of it has taken place.
    #[error("{0}")]
    Refused(Error),
    /// The session is lost: it may have taken place.
    #[error("{0}")]
    Lost(Error),
}

impl Session {
    /// A session over a connection that was made just now, and whether its server is a
    /// standby. `tasks` owns what drives it, and the session ends it.
    pub(super) async fn start<S>(
        client: tokio_postgres::Client,
        connection: Connection<Socket, S>,
        role: Role,
        tls: MakeRustlsConnect,
        tasks: &TaskTracker,
    ) -> Result<(Self, bool), SessionError>
    where
        S: TlsStream + Unpin + Send + 'static,
    {
        let seen = Arc::<Seen>::default();
        let (heard, notifications) = mpsc::channel(NOTIFICATIONS_LEN);
        let driver = tasks.spawn(drive(connection, Arc::clone(&seen), heard));
        let driver = AbortOnDropHandle::new(driver);
        let setup = format!("{}; SELECT pg_is_in_recovery()", role.setup());
        let answers = client.simple_query(&setup).await?;
        let is_standby = answers.iter().rev().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let is_standby = is_standby == Some("t");
        let session = Self {
            cancel: client.cancel_token(),
            tls,
            tasks: tasks.clone(),
            connection: AsyncPgConnection::try_from(client).await?,
            limit: role.limit(),
            seen,
            notifications: Mutex::new(notifications),
            driver,
        };
        Ok((session, is_standby))
    }

    /// All rows of a query.
    //
    // Boxed, like what is below: the driver's futures name lifetimes that the compiler
    // cannot follow through another generic function.
    pub(in crate::store) fn rows<'query, 'session, Q, U>(
        &'session self,
        query: Q,
    ) -> BoxFuture<'session, QueryResult<Vec<U>>>
    where
        'query: 'session,
        U: Send + 'session,
        Q: LoadQuery<'query, &'session AsyncPgConnection, U> + Send + 'query,
    {
        let rows = async move { query.load(&mut &self.connection).await };
        self.within(self.limit, rows).boxed()
    }

    /// The row of a query that has one; of several, the first.
    pub(in crate::store) fn row<'query, 'session, Q, U>(
        &'session self,
        query: Q,
    ) -> BoxFuture<'session, QueryResult<U>>
    where
        'query: 'session,
        U: Send + 'session,
        Q: LoadQuery<'query, &'session AsyncPgConnection, U> + Send + 'query,
    {
        let row = self.optional_row(query);
        async move { row.await?.ok_or(Error::NotFound) }.boxed()
    }

    /// The row of a query that has one or none; of several, the first.
    pub(in crate::store) fn optional_row<'query, 'session, Q, U>(
        &'session self,
        query: Q,
    ) -> BoxFuture<'session, QueryResult<Option<U>>>
    where
        'query: 'session,
        U: Send + 'session,
        Q: LoadQuery<'query, &'session AsyncPgConnection, U> + Send + 'query,
    {
        let rows = self.rows(query);
        async move { Ok(rows.await?.into_iter().next()) }.boxed()
    }

    /// Runs a statement; returns how many rows it has written.
    pub(in crate::store) fn execute<'query, 'session, Q>(
        &'session self,
        statement: Q,
    ) -> BoxFuture<'session, QueryResult<usize>>
    where
        'query: 'session,
        Q: ExecuteDsl<&'session AsyncPgConnection> + Send + 'query,
    {
        let execute = async move { statement.execute(&mut &self.connection).await };
        self.within(self.limit, execute).boxed()
    }

    /// Runs several statements, separated by semicolons. What they return is not looked at:
    /// a COMMIT of a transaction that has failed is a ROLLBACK, and no error.
    pub(in crate::store) async fn batch(&self, sql: &str) -> QueryResult<()> {
        self.batch_within(self.limit, sql).await
    }

    async fn batch_within(&self, limit: Duration, sql: &str) -> QueryResult<()> {
        self.within(limit, (&mut &self.connection).batch_execute(sql))
            .await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        statement: impl Future<Output = QueryResult<T>>,
    ) -> QueryResult<T> {
        timeout(limit, statement).await.unwrap_or_else(|_| {
            self.seen.lost.store(true, Ordering::Release);
            let reason = format!("no response within {} s", limit.as_secs());
            Err(Error::DatabaseError(
                DatabaseErrorKind::ClosedConnection,
                Box::new(reason),
            ))
        })
    }

    /// What an error of a statement means, which only the session can tell.
    ///
    /// A backend that is told to end while it runs a statement answers with an error
    /// like any other before it goes. So the session is asked, by a statement that also
    /// ends the transaction that the error may have left open.
    pub(in crate::store) async fn judge(&self, error: Error) -> Failure {
        if breaks_connection(&error) || self.is_lost() {
            return Failure::Lost(error);
        }
        match self.batch_within(PROBE_LIMIT, "ROLLBACK").await {
            Ok(()) => Failure::Refused(error),
            Err(_) => Failure::Lost(error),
        }
    }

    /// Asks the database to cancel what the session runs, over a connection of its own that
    /// is secured like the session's. The cancel may take effect some time after this returns.
    pub(super) async fn cancel(&self) -> Result<(), tokio_postgres::Error> {
        self.cancel.cancel_query(self.tls.clone()).await
    }

    /// What owns the tasks that belong to sessions.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Ends the session from elsewhere: it is lost to whatever waits for it.
    pub(super) fn driver(&self) -> AbortHandle {
        self.driver.abort_handle()
    }

    /// Whether it is known to be of no more use.
    pub(in crate::store) fn is_lost(&self) -> bool {
        AtomicBool::load(&self.seen.lost, Ordering::Acquire)
    }

    /// How many warnings the database has sent. One that belongs to a statement has been
    /// counted when the statement returns.
    pub(in crate::store) fn warnings(&self) -> u64 {
        AtomicU64::load(&self.seen.warnings, Ordering::Acquire)
    }

    /// The next notification; `None` when the session is lost.
    pub(in crate::store) async fn notification(&self) -> Option<String> {
        self.notifications.lock().await.recv().await
    }

    /// Gives the session over to migrations, which have no limit: they take as long as
    /// the tables are large.
    pub(super) fn into_migrations(self) -> Migrations {
        Migrations {
            harness: AsyncMigrationHarness::new(self.connection),
            _driver: self.driver,
        }
    }
}

/// A session that runs migrations.
pub(super) struct Migrations {
    pub(super) harness: AsyncMigrationHarness<AsyncPgConnection>,
    _driver: AbortOnDropHandle<()>,
}

/// Moves what goes over the connection until it ends.
async fn drive<S>(
    mut connection: Connection<Socket, S>,
    seen: Arc<Seen>,
    heard: mpsc::Sender<String>,
) where
    S: TlsStream + Unpin + Send + 'static,
{
    let _lost_at_the_end = LostAtTheEnd(Arc::clone(&seen));
    let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
    while let Some(Ok(message)) = messages.next().await {
        match message {
            AsyncMessage::Notice(notice) if notice.routine() != Some(GIVES_OUT_IDS) => {
                seen.warnings.fetch_add(1, Ordering::Release);
            }
            AsyncMessage::Notification(notification) => {
                // One that finds no place says what those before it say.
                let _ = heard.try_send(notification.payload().to_owned());
            }
            _ => {}
        }
    }
}

/// However the driver ends.
struct LostAtTheEnd(Arc<Seen>);

impl Drop for LostAtTheEnd {
    fn drop(&mut self) {
        self.0.lost.store(true, Ordering::Release);
    }
}

/// Whether the driver says that the connection broke.
pub(super) fn breaks_connection(error: &Error) -> bool {
    matches!(
        error,
        Error::DatabaseError(
            DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection,
            _
        ) | Error::BrokenTransactionManager
    )
}
