//! One attempt of a committer at a group of writes: reads the calls that they name, plans a batch,
//! commits it, and returns what is left to do.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use diesel::QueryResult;
use tracing::warn;

use super::{
    commit_outcome::{self, LostCommit},
    idempotency, planner,
    planner::{Batch, CommittedWrites, Known, Pending, States},
    session::{WriterSession, lost},
    statement::{self, Reply},
};
use crate::store::{
    change_log::log::Position,
    database::{Failure, Lock, Session},
    read::{by_uid, by_uid::NarrowedUids},
};

/// How often a group has been tried, and failed in which way.
#[derive(Debug)]
pub(crate) struct Effort {
    pub(crate) started_at: Instant,
    /// Something that it was planned from had changed.
    pub(crate) stale: u32,
    /// The session was lost, and nothing of the group has taken place.
    pub(crate) lost: u32,
    /// The database refused a statement before the commit.
    pub(crate) refused_before: u32,
    /// The database refused it.
    pub(crate) refused: u32,
    /// There was no partition for it.
    pub(crate) no_partition: u32,
}

impl Effort {
    /// After this many stale batches one takes the lock before it reads.
    const LOCKED_AFTER: u32 = 3;
    /// Under the lock nothing that is read becomes stale, and repeated requests leave the
    /// group. So this is never reached, unless the database contradicts itself.
    pub(crate) const MAX_STALE: u32 = 8;
    pub(crate) const MAX_LOST: u32 = 3;
    /// Statements before the commit carry only uids, so that the fault is in no write: it is
    /// in the session, which may have a plan that does not fit a column any more, or passes.
    pub(crate) const MAX_REFUSED_BEFORE: u32 = 4;
    /// A statement that has waited for a lock this long, or several together, is not repeated:
    /// no other write is committed meanwhile.
    pub(crate) const MAX_TIME_BEFORE: Duration = Duration::from_secs(4);
    /// An administrator's cancel looks like any refusal where the commit function does not
    /// see it, but does not strike again and again.
    pub(crate) const MAX_REFUSED: u32 = 4;
    pub(crate) const MAX_NO_PARTITION: u32 = 3;

    pub(crate) fn new() -> Self {
        Self {
            started_at: Instant::now(),
            stale: 0,
            lost: 0,
            refused_before: 0,
            refused: 0,
            no_partition: 0,
        }
    }
}

/// What is left to do after an attempt.
pub(crate) enum Attempt {
    /// To respond to the callers: their writes are committed, after the position.
    Committed {
        writes: CommittedWrites,
        before: Position,
        stamp: i64,
    },
    /// Nothing.
    Done,
    /// To attempt these again: something that they were planned from has changed.
    Stale(Vec<Pending>),
    /// To attempt these again: the session was lost before anything was written.
    Lost(Vec<Pending>),
    /// To attempt these again: the database refused a statement before the commit.
    RefusedBefore(Vec<Pending>, String),
    /// To attempt these again: the database refused them outside of its commit function.
    Refused(Vec<Pending>, String),
    /// To attempt these again, when there are partitions for them.
    LacksPartition(Vec<Pending>),
    /// To refuse these for now: the database cannot commit them, for this SQLSTATE.
    Passing(Vec<Pending>, String),
    /// The database refuses one of these, with this SQLSTATE.
    Poisoned(Vec<Pending>, String),
}

/// How far an attempt was when the session was lost.
pub(crate) enum Lost {
    /// Nothing had been sent.
    Before(Vec<Pending>),
    /// The batch may have been committed.
    During(Batch, LostCommit),
}

impl Lost {
    fn before(group: Vec<Pending>, error: &diesel::result::Error) -> Self {
        warn!(%error, "a committer gave up its connection");
        Self::Before(group)
    }

    fn during(
        batch: Batch,
        stamp: i64,
        session: &WriterSession,
        error: &diesel::result::Error,
    ) -> Self {
        warn!(%error, "a committer lost its connection during a commit");
        let commit = LostCommit {
            backend: session.backend.clone(),
            known: session.known,
            stamp,
            changes: batch.changes.len(),
        };
        Self::During(batch, commit)
    }
}

/// One attempt at a group. An error has cost the session.
pub(crate) async fn attempt(
    session: &mut WriterSession,
    group: Vec<Pending>,
    effort: &Effort,
    postponed: &mut Vec<Pending>,
) -> Result<Attempt, Lost> {
    let locked = effort.stale >= Effort::LOCKED_AFTER;
    // A batch that keeps losing takes the commit's lock before it reads.
    let begin = format!(
        "BEGIN; SELECT pg_advisory_xact_lock{}",
        Lock::Commits.arguments()
    );
    if locked && let Err(error) = session.session.batch(&begin).await {
        return refused_before(session, group, error).await;
    }
    let repeated = effort.stale > 0;
    let states = match read_states(session, &group, repeated).await {
        Ok(states) => states,
        Err(error) => return refused_before(session, group, error).await,
    };
    let (batch, later) = planner::plan(group, &states);
    postponed.extend(later);
    let stamp = rand::random();
    let reply = if batch.is_empty() {
        None
    } else {
        Some(commit(session, stamp, &batch).await)
    };
    let reply = match (reply, locked) {
        (None, false) => return Ok(Attempt::Done),
        (reply, false) => reply.transpose(),
        (Some(Err(error)), true) => Err(error),
        (reply, true) => end_transaction(session, stamp, &batch, reply.and_then(Result::ok)).await,
    };
    match reply {
        Ok(None) => Ok(Attempt::Done),
        Ok(Some(reply)) => after_reply(session, batch, stamp, reply).await,
        // What the database did not refuse itself it may have committed.
        Err(error) if !matches!(error, diesel::result::Error::DatabaseError(..)) => {
            Err(Lost::during(batch, stamp, session, &error))
        }
        Err(error) => match session.session.judge(error).await {
            // The database's own answer, so nothing was written: cancelled by an
            // administrator, say, or refused by what looks at a transaction as a whole.
            Failure::Refused(error) => {
                Ok(Attempt::Refused(batch.into_pending(), error.to_string()))
            }
            Failure::Lost(error) => Err(Lost::during(batch, stamp, session, &error)),
        },
    }
}

/// Commits the batch. A warning with it is how the database says that the wait for its
/// standby was cancelled: then the batch has reached it when a later commit has.
async fn commit(session: &WriterSession, stamp: i64, batch: &Batch) -> QueryResult<Reply> {
    let warnings = session.session.warnings();
    let asked_at = Instant::now();
    let reply = statement::commit(&session.session, stamp, &session.clock, batch).await?;
    if let Reply::Committed { clock, .. } = &reply {
        session.clock.database_says(*clock, asked_at);
    }
    if session.session.warnings() != warnings && matches!(reply, Reply::Committed { .. }) {
        session.reach_standby().await?;
    }
    Ok(reply)
}

/// Ends the transaction that took the lock ahead. Changes that were written in it count when
/// they are in the log; a batch without changes leaves no stamp there to be found.
async fn end_transaction(
    session: &WriterSession,
    stamp: i64,
    batch: &Batch,
    reply: Option<Reply>,
) -> QueryResult<Option<Reply>> {
    let warnings = session.session.warnings();
    session.session.batch("COMMIT").await?;
    let Some(Reply::Committed { .. }) = &reply else {
        return Ok(reply);
    };
    if session.session.warnings() != warnings {
        session.reach_standby().await?;
    }
    if batch.changes.is_empty() {
        return Ok(reply);
    }
    let is_committed = commit_outcome::is_committed(session, stamp).await;
    if is_committed.map_err(|error| lost(&error))? {
        return Ok(reply);
    }
    Ok(Some(Reply::Conflict {
        repeated: Vec::new(),
    }))
}

async fn after_reply(
    session: &mut WriterSession,
    batch: Batch,
    stamp: i64,
    reply: Reply,
) -> Result<Attempt, Lost> {
    match reply {
        Reply::Committed {
            head_before,
            committed_at,
            clock: _,
        } => {
            let writes = batch.commit(head_before.revision, committed_at);
            let head = writes
                .last_revision()
                .map_or(head_before, |revision| Position { revision, stamp });
            session.committed(head);
            Ok(Attempt::Committed {
                writes,
                before: head_before,
                stamp,
            })
        }
        Reply::LacksPartition => Ok(Attempt::LacksPartition(batch.into_pending())),
        Reply::Conflict { repeated } => settle(session, batch, &repeated).await,
        Reply::Refused(sqlstate) if is_passing(&sqlstate) => {
            Ok(Attempt::Passing(batch.into_pending(), sqlstate))
        }
        Reply::Refused(sqlstate) => Ok(Attempt::Poisoned(batch.into_pending(), sqlstate)),
    }
}

/// What is left to do when a statement before the commit failed. Nothing was written.
async fn refused_before(
    session: &WriterSession,
    group: Vec<Pending>,
    error: diesel::result::Error,
) -> Result<Attempt, Lost> {
    match session.session.judge(error).await {
        Failure::Refused(error) => Ok(Attempt::RefusedBefore(group, error.to_string())),
        Failure::Lost(error) => Err(Lost::before(group, &error)),
    }
}

async fn read_states(
    session: &mut WriterSession,
    group: &[Pending],
    repeated: bool,
) -> QueryResult<States> {
    session.refresh().await?;
    let mut uids = Vec::new();
    let mut narrowed = NarrowedUids::default();
    for Pending { write, .. } in group {
        match &write.narrowing {
            None => uids.extend(write.named_uids()),
            Some(narrowing) => narrowed.extend(write.named_uids(), narrowing),
        }
    }
    uids.sort_unstable();
    uids.dedup();
    let session: &Session = &session.session;
    let mut calls = Vec::new();
    // Who is narrowed is told nothing by the time that this takes, nor by the look for what was
    // purged, which follows whatever is found.
    if !narrowed.is_empty() {
        calls = by_uid::load_narrowed(session, &narrowed).await?;
    }
    if !uids.is_empty() {
        calls.extend(by_uid::load(session, &uids).await?);
    }
    let mut states: States = calls
        .into_iter()
        .map(|call| (call.uid, Known::Call(Arc::new(call))))
        .collect();
    // A uid that is to be new is looked up among the purged ones by the commit,
    // which finds it stale if it is there.
    let mut missing: Vec<_> = group
        .iter()
        .filter(|pending| repeated || !pending.write.creates_missing())
        .flat_map(|pending| pending.write.named_uids())
        .filter(|uid| !states.contains_key(uid))
        .collect();
    if !missing.is_empty() {
        missing.sort_unstable();
        missing.dedup();
        let purged = by_uid::purged(session, &missing).await?;
        states.extend(purged.into_iter().map(|uid| (uid, Known::Purged)));
    }
    Ok(states)
}

/// After a conflict: responds to the repeated requests from their records, and returns the rest.
///
/// A record was found and not committed by this session, so it must reach the standby before the
/// response.
async fn settle(
    session: &WriterSession,
    batch: Batch,
    repeated: &[usize],
) -> Result<Attempt, Lost> {
    if !repeated.is_empty()
        && let Err(error) = session.reach_standby().await
    {
        return Err(Lost::before(batch.into_pending(), &error));
    }
    let mut again = Vec::new();
    let mut pendings = batch.into_pending().into_iter().enumerate();
    while let Some((place, pending)) = pendings.next() {
        let (true, Some(request)) = (repeated.contains(&place), pending.write.request) else {
            again.push(pending);
            continue;
        };
        let principal = pending.write.principal_name();
        let expiry = session.clock.expiry_now();
        match idempotency::recorded_answer(&session.session, &principal, request, expiry).await {
            Ok(Some(answer)) => pending.answer(answer),
            // The record has expired since, so the request counts as new.
            Ok(None) => again.push(pending),
            Err(error) => {
                again.push(pending);
                again.extend(pendings.map(|(_, pending)| pending));
                return Err(Lost::before(again, &error));
            }
        }
    }
    if again.is_empty() {
        Ok(Attempt::Done)
    } else {
        Ok(Attempt::Stale(again))
    }
}

/// SQLSTATEs that have nothing to do with the batch, and what they mean. Named one by one:
/// others of the same classes are refused whenever they are repeated.
const PASSING: [(&str, &str); 16] = [
    ("25006", "it is read-only"),
    ("40001", "another transaction came between"),
    ("40P01", "another transaction waited for this one"),
    ("53000", "it lacks resources"),
    ("53100", "its disk is full"),
    ("53200", "it has no memory left"),
    ("53300", "it has no connections left"),
    ("53400", "a limit of its configuration is reached"),
    (
        "54000",
        "a limit is exceeded, perhaps that of transaction ids: then it needs VACUUM",
    ),
    ("55P03", "a lock was not to be had in time"),
    ("57014", "an administrator cancelled it"),
    ("57P01", "it is shutting down"),
    ("57P02", "it has crashed"),
    ("57P03", "it is starting"),
    ("58000", "a system error, see its log"),
    ("58030", "an input or output error, see its log"),
];

fn is_passing(sqlstate: &str) -> bool {
    PASSING.iter().any(|(passing, _)| *passing == sqlstate)
}

/// Whether one of the writes may be the reason of a passing SQLSTATE, if the database commits
/// without them: a row that is too large for an index, or a conflict that a trigger raises. A
/// lack of resources is not, because a commit without changes hardly needs any.
pub(crate) fn may_be_of_a_write(sqlstate: &str) -> bool {
    sqlstate.starts_with("40") || sqlstate.starts_with("54")
}

/// Whether a write that stands alone with it, on a database that commits others, is refused
/// for good.
pub(crate) fn is_for_good(sqlstate: &str) -> bool {
    sqlstate.starts_with("54")
}

/// What a passing SQLSTATE means.
pub(crate) fn meaning(sqlstate: &str) -> &'static str {
    let passing = PASSING.iter().find(|(passing, _)| *passing == sqlstate);
    passing.map_or("unknown", |(_, meaning)| meaning)
}
