//! The sessions of one committer, one at a time.
//!
//! A session is good for writing once one commit of its own has reached the synchronous
//! standby, if there is one. After a crash the database shows commits that had not reached
//! it, and what is answered because it was found must survive the loss of that server. That
//! commit writes to the write-ahead log, because only then does it wait, and takes no lock.
//!
//! No session is made before the backend of the one before has ended: it may still hold
//! the lock that orders commits, or commit yet. A backend that waits for a standby
//! cannot be ended without hiding what it has committed, so it is waited for; while the
//! standby is unavailable, a committer has this one connection and one to look at it.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use diesel::{
    QueryResult, QueryableByName,
    data_types::PgTimestamp,
    pg::sql_types::Timestamptz,
    result::{DatabaseErrorKind, Error},
    sql_query,
    sql_types::{BigInt, Bool, Integer, Nullable, Text},
};

use crate::store::{
    change_log::log::Position,
    database::{Clock, Connector, Role, Session},
    error::OpenError,
    values::from_sql_time,
};

/// Looks at a backend that is to end, each of which gives it a second.
const MAX_LOOKS: u32 = 3;
/// Refusals for passing reasons that a session is kept for.
const MAX_REFUSALS: u32 = 1;
/// SQLSTATE of a write that is refused because the session or server is read-only.
const READ_ONLY: &str = "25006";
/// After how long the end of the log is looked at again before a commit.
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// The backend of a session, and in which history of the database it lives.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct Backend {
    #[diesel(sql_type = Integer)]
    pid: i32,
    #[diesel(sql_type = Timestamptz)]
    started_at: PgTimestamp,
    #[diesel(sql_type = Text)]
    pub(crate) timeline: String,
    /// What the database's clock said then.
    #[diesel(sql_type = Timestamptz)]
    clock: PgTimestamp,
}

/// A session that writes.
pub(crate) struct WriterSession {
    pub(crate) session: Session,
    pub(crate) backend: Backend,
    /// The time, as evidence of the log's.
    pub(crate) clock: Clock,
    /// Where the log ended when this session last saw its end, and when that was.
    pub(crate) known: Position,
    known_at: Instant,
    /// How often in a row it was refused for a passing reason.
    refusals: u32,
}

impl WriterSession {
    /// Takes note of a refusal for a passing reason; false: it is of no more use. What
    /// passes may not pass for a session that was made meanwhile.
    pub(crate) fn survives_refusal(&mut self, sqlstate: &str) -> bool {
        self.refusals += 1;
        self.refusals <= MAX_REFUSALS && sqlstate != READ_ONLY
    }

    /// Takes note of a commit.
    pub(crate) fn committed(&mut self, head: Position) {
        self.known = head;
        self.known_at = Instant::now();
        self.refusals = 0;
    }

    /// Takes note of a commit over another session, if it was of the same history.
    pub(crate) fn learn(&mut self, commit: Option<&(String, Position)>) {
        if let Some((timeline, position)) = commit
            && *timeline == self.backend.timeline
            && position.revision > self.known.revision
        {
            self.known = *position;
            self.known_at = Instant::now();
        }
    }

    /// Looks where the log ends, if it has not done so for a while: a lost commit is
    /// searched for from there on, and what is known must not have been dropped since.
    pub(crate) async fn refresh(&mut self) -> QueryResult<()> {
        if self.known_at.elapsed() > KNOWN_FOR {
            self.known = end_of_log(&self.session, &self.clock).await?;
            self.known_at = Instant::now();
        }
        Ok(())
    }

    /// Makes sure that all that this session has seen committed has reached the
    /// synchronous standby, by a commit of its own.
    pub(crate) async fn reach_standby(&self) -> QueryResult<()> {
        reach_standby(&self.session).await
    }
}

/// Makes the sessions of one committer.
pub(crate) struct WriterSessions {
    connector: Connector,
    clock: Clock,
    /// The backend that must have ended before there is another session.
    former: Option<Backend>,
    /// Looks at it.
    watch: Option<Session>,
}

impl WriterSessions {
    pub(crate) fn new(connector: Connector, clock: Clock) -> Self {
        Self {
            connector,
            clock,
            former: None,
            watch: None,
        }
    }

    /// Takes note that a session was lost or is given up.
    pub(crate) fn give_up(&mut self, backend: Backend) {
        self.former = Some(backend);
    }

    /// Makes a session; none while the former backend lives. One that comes first takes the
    /// place of a session that only reads, where no other is left.
    pub(crate) async fn open(&mut self, comes_first: bool) -> Result<WriterSession, OpenError> {
        if let Some(former) = self.former.clone() {
            self.end(&former, comes_first).await?;
            self.former = None;
        }
        let text = |error: Error| OpenError::Connect(error.to_string());
        let session = self.connect(Role::Write, comes_first).await;
        if let Err(OpenError::NoConnectionLeft { .. }) = session {
            // The other committer may have its place.
            self.watch = None;
        }
        let session = session?;
        let asked_at = Instant::now();
        let backend = backend(&session).await.map_err(text)?;
        self.clock
            .database_says(from_sql_time(backend.clock), asked_at);
        // Whatever happens from here on, it may wait for a standby.
        self.former = Some(backend.clone());
        if let Err(error) = reach_standby(&session).await {
            // Another host may be the primary by now, whose standby answers.
            self.connector.try_others_first();
            return Err(OpenError::Connect(format!(
                "it is reached, but a commit is not confirmed, as by its synchronous standby: \
                 {error}"
            )));
        }
        let known = end_of_log(&session, &self.clock).await.map_err(text)?;
        self.former = None;
        // Not needed while all is well.
        self.watch = None;
        Ok(WriterSession {
            session,
            backend,
            clock: self.clock.clone(),
            known,
            known_at: Instant::now(),
            refusals: 0,
        })
    }

    /// Ends the backend; an error says why it has not ended yet.
    async fn end(&mut self, backend: &Backend, comes_first: bool) -> Result<(), OpenError> {
        let lives = |reason: &str| Err(OpenError::Connect(reason.to_owned()));
        let watch = match self.watch.take() {
            Some(watch) => watch,
            None => self.connect(Role::Maintain, comes_first).await?,
        };
        for _ in 0..MAX_LOOKS {
            let state = end(&watch, backend).await;
            match state.map_err(|error| OpenError::Connect(error.to_string()))? {
                None
                | Some(State {
                    ended: Some(true), ..
                }) => {
                    self.watch = Some(watch);
                    return Ok(());
                }
                Some(State { waits: true, .. }) => {
                    self.watch = Some(watch);
                    return lives("the backend of the session before waits for a standby");
                }
                Some(State { .. }) => {}
            }
        }
        lives("the backend of the session before does not end")
    }

    async fn connect(&self, role: Role, comes_first: bool) -> Result<Session, OpenError> {
        if comes_first {
            self.connector.connect_first(role).await
        } else {
            self.connector.connect(role).await
        }
    }
}

/// Asks a session for its backend.
async fn backend(session: &Session) -> QueryResult<Backend> {
    session
        .row(sql_query(
            "SELECT pid, backend_start AS started_at, \
             left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline, \
             clock_timestamp() AS clock \
             FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        ))
        .await
}

#[derive(QueryableByName)]
#[expect(dead_code, reason = "what is asked for is that the message is written")]
struct Emitted {
    #[diesel(sql_type = Bool)]
    emitted: bool,
}

async fn reach_standby(session: &Session) -> QueryResult<()> {
    let warnings = session.warnings();
    let emit =
        sql_query("SELECT pg_logical_emit_message(true, 'voicecall', '') IS NOT NULL AS emitted");
    let emitted: QueryResult<Emitted> = session.row(emit).await;
    emitted.map_err(|error| lost(&error))?;
    if session.warnings() == warnings {
        return Ok(());
    }
    Err(lost(&"the wait for the standby was cancelled"))
}

/// The error of a statement after a commit: whatever it says, it is not a refusal of what
/// was committed before.
pub(crate) fn lost(reason: &impl Display) -> Error {
    Error::DatabaseError(
        DatabaseErrorKind::ClosedConnection,
        Box::new(reason.to_string()),
    )
}

#[derive(QueryableByName)]
struct End {
    #[diesel(sql_type = BigInt)]
    revision: i64,
    #[diesel(sql_type = BigInt)]
    stamp: i64,
    #[diesel(sql_type = Timestamptz)]
    log_time: PgTimestamp,
}

/// Where the log ends; its time is taken note of.
async fn end_of_log(session: &Session, clock: &Clock) -> QueryResult<Position> {
    let end: Option<End> = session
        .optional_row(sql_query(
            "SELECT last_revision AS revision, stamp, \
                greatest(committed_at, confirmed_at) AS log_time \
             FROM voice_call_batches ORDER BY last_revision DESC LIMIT 1",
        ))
        .await?;
    let Some(end) = end else {
        return Ok(Position::default());
    };
    clock.log_says(from_sql_time(end.log_time));
    Ok(Position {
        revision: end.revision,
        stamp: end.stamp,
    })
}

#[derive(QueryableByName)]
struct State {
    /// It waits for a standby: it has committed.
    #[diesel(sql_type = Bool)]
    waits: bool,
    /// Whether it was told to end, and has.
    #[diesel(sql_type = Nullable<Bool>)]
    ended: Option<bool>,
}

/// What the backend does, if it still lives; it is told to end, which it has a second for,
/// unless it waits for a standby: it has committed then, and ending it would only hide that.
async fn end(session: &Session, backend: &Backend) -> QueryResult<Option<State>> {
    session
        .optional_row(
            sql_query(
                "SELECT a.waits, \
                    CASE WHEN NOT a.waits THEN pg_terminate_backend(a.pid, 1000) END AS ended \
                 FROM ( \
                    SELECT pid, wait_event IS NOT DISTINCT FROM 'SyncRep' AS waits \
                    FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2 \
                    OFFSET 0 \
                 ) a",
            )
            .bind::<Integer, _>(backend.pid)
            .bind::<Timestamptz, _>(backend.started_at),
        )
        .await
}

/// Whether the backend still lives, on the server of this session.
pub(crate) async fn lives(session: &Session, backend: &Backend) -> QueryResult<bool> {
    let state = end(session, backend).await?;
    Ok(state.is_some_and(|state| state.ended != Some(true)))
}
