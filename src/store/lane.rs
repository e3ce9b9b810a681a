//! A lane of the writer: runs batches against the database, as often as each
//! takes, and finds out what became of one whose connection broke.

use std::sync::Arc;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio::{
    runtime::Handle,
    sync::{Mutex, mpsc},
};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::{
    availability::Availability,
    batch::{self, Batch, Known, Pending, States},
    commit::{self, Reply},
    connection::{Connector, Role},
    error::{WriteError, breaks_connection, is_lost},
    head::Head,
    log::{Commit, Position},
    outcome::{self, Backend, Fate},
    queue::Queue,
    reader, records,
};
use crate::domain::{Revision, Timestamp};

/// After so many repeats a batch takes the lock before it reads.
const MAX_STALE_REPEATS: u32 = 3;
/// What `commit_batch` locks first; taken ahead by a batch that keeps losing.
const BEGIN_LOCKED: &str = "BEGIN; SELECT pg_advisory_xact_lock(8642101, 1)";

/// Where committed batches go besides their callers: bounded, and never waited
/// for.
pub(super) type Commits = mpsc::Sender<Commit>;

/// A connection, and who is at its other end.
struct Session {
    connection: AsyncPgConnection,
    backend: Backend,
}

/// One lane: a task of the store's, which ends when the queue is closed and
/// empty.
pub(super) struct Lane {
    /// Whoever holds the queue has the turn.
    turn: Arc<Mutex<Queue>>,
    connector: Connector,
    availability: Availability,
    head: Head,
    /// Who wants to hear of commits.
    commits: Commits,
    /// Owns the lane, and what it starts.
    tasks: TaskTracker,
    /// Kept from batch to batch, unless it breaks.
    session: Option<Session>,
}

/// A batch that is committed, and not answered yet.
struct Committed(Batch);

/// What became of a group of writes.
enum Written {
    /// It is committed; the callers wait for their answers.
    Committed(Committed),
    /// All callers have been answered.
    Answered,
    /// The database refuses one of these.
    Poisoned(Vec<Pending>),
}

/// What is left to do after an attempt.
enum Attempt {
    /// To answer the callers.
    Commit(Committed),
    /// Nothing.
    Done,
    /// These again: something they were computed from has changed.
    Again(Vec<Pending>),
    /// These again, one of which the database refuses, with its reason.
    Poisoned(Vec<Pending>, String),
}

impl Lane {
    pub(super) fn new(
        turn: Arc<Mutex<Queue>>,
        connector: Connector,
        availability: Availability,
        head: Head,
        commits: Commits,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            turn,
            connector,
            availability,
            head,
            commits,
            tasks,
            session: None,
        }
    }

    pub(super) async fn run(mut self) {
        let turn = Arc::clone(&self.turn);
        loop {
            let mut queue = turn.lock().await;
            let taken = queue.take().await;
            if taken.is_empty() {
                return;
            }
            let mut groups = vec![taken];
            let mut committed = Vec::new();
            while let Some(group) = groups.pop() {
                match self.write(group, &mut queue.postponed).await {
                    Written::Committed(batch) => committed.push(batch),
                    Written::Answered => {}
                    Written::Poisoned(group) => groups.extend(halve(group)),
                }
            }
            drop(queue);
            for Committed(batch) in committed {
                self.answer(batch);
            }
        }
    }

    /// Answers the callers of a batch, each thread's by a task on that thread: it wakes
    /// once, not once for each of its callers, and what they send leaves together.
    fn answer(&self, batch: Batch) {
        let mut threads: Vec<(Handle, Vec<_>)> = Vec::new();
        for (pending, result) in batch.answers() {
            let thread = pending.caller.id();
            let place = threads.iter().position(|(caller, _)| caller.id() == thread);
            let place = place.unwrap_or_else(|| {
                threads.push((pending.caller.clone(), Vec::new()));
                threads.len() - 1
            });
            threads[place].1.push((pending, result));
        }
        for (thread, answers) in threads {
            let answer = async move {
                for (pending, result) in answers {
                    pending.answer(result);
                }
            };
            self.tasks.spawn_on(answer, &thread);
        }
    }

    /// Writes a group, however often that takes.
    async fn write(&mut self, mut group: Vec<Pending>, postponed: &mut Vec<Pending>) -> Written {
        let mut repeats = 0;
        loop {
            let Some(mut session) = self.session().await else {
                answer_all(group, &WriteError::Unavailable);
                return Written::Answered;
            };
            let attempt = self.attempt(&mut session, group, repeats, postponed).await;
            let attempt = match attempt {
                Ok(attempt) => {
                    self.session = Some(session);
                    attempt
                }
                Err(lost) => self.after_loss(session.backend, lost).await,
            };
            match attempt {
                Attempt::Commit(committed) => return Written::Committed(committed),
                Attempt::Done => return Written::Answered,
                Attempt::Again(again) => group = again,
                Attempt::Poisoned(poisoned, _) if poisoned.len() > 1 => {
                    return Written::Poisoned(poisoned);
                }
                Attempt::Poisoned(poisoned, reason) => {
                    error!(reason, "the database refuses a write");
                    answer_all(poisoned, &WriteError::Internal);
                    return Written::Answered;
                }
            }
            repeats += 1;
        }
    }

    /// One attempt at a group. An error has cost the session.
    async fn attempt(
        &mut self,
        session: &mut Session,
        group: Vec<Pending>,
        repeats: u32,
        postponed: &mut Vec<Pending>,
    ) -> Result<Attempt, Lost> {
        let locked = repeats >= MAX_STALE_REPEATS;
        let connection = &mut session.connection;
        if locked && let Err(error) = connection.batch_execute(BEGIN_LOCKED).await {
            return Err(Lost::before(group, &error));
        }
        let states = match read_states(connection, &group, repeats > 0).await {
            Ok(states) => states,
            Err(error) => return Err(Lost::before(group, &error)),
        };
        let (batch, later) = batch::plan(group, &states);
        postponed.extend(later);
        let stamp = rand::random();
        let known_head = self.head.get();
        let reply = if batch.is_empty() {
            None
        } else {
            match commit::commit(connection, stamp, &batch).await {
                Ok(reply) => Some(reply),
                Err(error) => {
                    // What the database did not say itself, it may have committed.
                    let is_answer = matches!(error, diesel::result::Error::DatabaseError(..));
                    if !is_answer || is_lost(connection, &error).await {
                        return Err(Lost::during(batch, stamp, known_head, &error));
                    }
                    // The database's own answer, so nothing was written: cancelled
                    // by an operator, say, or refused whenever it is repeated.
                    let (group, reason) = (batch.into_pending(), error.to_string());
                    return Ok(if locked {
                        Attempt::Poisoned(group, reason)
                    } else {
                        warn!(reason, "the database refuses a batch; trying again");
                        Attempt::Again(group)
                    });
                }
            }
        };
        if locked && let Err(error) = connection.batch_execute("COMMIT").await {
            return Err(Lost::during(batch, stamp, known_head, &error));
        }
        match reply {
            None => Ok(Attempt::Done),
            Some(Reply::Committed {
                head_before,
                committed_at,
            }) => {
                let attempt = self.committed(batch, head_before.revision, committed_at);
                self.hand_over(&attempt, head_before, stamp, committed_at);
                Ok(attempt)
            }
            Some(Reply::Conflict { repeated }) => settle(connection, batch, &repeated).await,
            Some(Reply::Refused(sqlstate)) if is_passing(&sqlstate) => {
                warn!(sqlstate, "the database cannot commit a batch now");
                answer_all(batch.into_pending(), &WriteError::Unavailable);
                Ok(Attempt::Done)
            }
            Some(Reply::Refused(sqlstate)) => Ok(Attempt::Poisoned(batch.into_pending(), sqlstate)),
        }
    }

    fn committed(
        &self,
        mut batch: Batch,
        head_before: Revision,
        committed_at: Timestamp,
    ) -> Attempt {
        self.head.advance(batch.commit(head_before, committed_at));
        Attempt::Commit(Committed(batch))
    }

    /// Hands the changes to who wants to hear of them, without waiting: who
    /// cannot keep up finds them in the log.
    fn hand_over(&self, attempt: &Attempt, before: Position, stamp: i64, committed_at: Timestamp) {
        if let Attempt::Commit(Committed(batch)) = attempt
            && !batch.changes.is_empty()
        {
            let _ = self.commits.try_send(Commit {
                before,
                stamp,
                changes: batch.changes.clone(),
                committed_at,
            });
        }
    }

    /// What is left to do after the session was lost.
    async fn after_loss(&mut self, backend: Backend, lost: Lost) -> Attempt {
        self.availability.report_down();
        match lost {
            Lost::Before(group) => {
                answer_all(group, &WriteError::Unavailable);
                Attempt::Done
            }
            Lost::During {
                batch,
                stamp,
                known_head,
            } => match outcome::find(&self.connector, &backend, stamp, known_head).await {
                Fate::Committed {
                    head_before,
                    committed_at,
                } => self.committed(batch, head_before, committed_at),
                Fate::NotCommitted => Attempt::Again(batch.into_pending()),
                Fate::Unknown => {
                    error!("cannot find out whether a batch was committed");
                    answer_all(batch.into_pending(), &WriteError::OutcomeUnknown);
                    Attempt::Done
                }
            },
        }
    }

    async fn session(&mut self) -> Option<Session> {
        if let Some(session) = self.session.take() {
            return Some(session);
        }
        let open = async {
            let mut connection = self.connector.connect(Role::Write).await.ok()?;
            let backend = outcome::backend(&mut connection).await.ok()?;
            Some(Session {
                connection,
                backend,
            })
        };
        let session = open.await;
        if session.is_none() {
            self.availability.report_down();
        }
        session
    }
}

/// What was under way when the session was lost.
enum Lost {
    /// Nothing had been sent.
    Before(Vec<Pending>),
    /// The batch may have been committed.
    During {
        batch: Batch,
        stamp: i64,
        known_head: Revision,
    },
}

impl Lost {
    fn before(group: Vec<Pending>, error: &diesel::result::Error) -> Self {
        log_unless_away(error);
        Self::Before(group)
    }

    fn during(
        batch: Batch,
        stamp: i64,
        known_head: Revision,
        error: &diesel::result::Error,
    ) -> Self {
        log_unless_away(error);
        Self::During {
            batch,
            stamp,
            known_head,
        }
    }
}

fn log_unless_away(error: &diesel::result::Error) {
    if breaks_connection(error) {
        warn!("a writer lost its connection to the database");
    } else {
        error!(%error, "a writer gives up its connection");
    }
}

async fn read_states(
    connection: &mut AsyncPgConnection,
    group: &[Pending],
    repeated: bool,
) -> diesel::QueryResult<States> {
    let mut uids: Vec<_> = group
        .iter()
        .flat_map(|pending| pending.write.named_uids())
        .collect();
    if uids.is_empty() {
        return Ok(States::new());
    }
    uids.sort_unstable();
    uids.dedup();
    let calls = reader::load(connection, &uids).await?;
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
        let purged = reader::purged(connection, &missing).await?;
        states.extend(purged.into_iter().map(|uid| (uid, Known::Purged)));
    }
    Ok(states)
}

/// After a conflict: answers the repeated requests from their records, and
/// returns the rest.
async fn settle(
    connection: &mut AsyncPgConnection,
    batch: Batch,
    repeated: &[usize],
) -> Result<Attempt, Lost> {
    let mut again = Vec::new();
    let mut pendings = batch.into_pending().into_iter().enumerate();
    while let Some((place, pending)) = pendings.next() {
        let (true, Some(request)) = (repeated.contains(&place), pending.write.request) else {
            again.push(pending);
            continue;
        };
        let principal = pending.write.principal_name();
        match records::recorded_answer(connection, principal, request).await {
            Ok(Some(answer)) => pending.answer(answer),
            // The record has expired since; the request is a new one now.
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
        Ok(Attempt::Again(again))
    }
}

/// Whether what the database refuses has nothing to do with the batch: a lock,
/// a serialization, its resources, its state.
fn is_passing(sqlstate: &str) -> bool {
    ["25006", "40", "53", "55", "57", "58"]
        .iter()
        .any(|class| sqlstate.starts_with(class))
}

fn halve(mut group: Vec<Pending>) -> [Vec<Pending>; 2] {
    let second = group.split_off(group.len() / 2);
    // The last is taken first.
    [second, group]
}

fn answer_all(group: Vec<Pending>, error: &WriteError) {
    for pending in group {
        pending.answer(Err(error.clone()));
    }
}
