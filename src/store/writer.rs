//! The group-commit writer: a bounded queue, and lanes that take turns. A lane
//! whose turn it is takes everything that is waiting, runs it through the state
//! machine and commits it in one statement; then the turn passes on, and it
//! answers its callers while the next lane commits.
//!
//! A batch is taken as late as possible, because a larger batch costs less for
//! each write. It never waits for more to come.
//!
//! Other replicas commit between our batches. The database orders all commits,
//! and a batch that was computed from a state that is no longer so is computed
//! again.

use std::{mem, sync::Arc};

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::{
    availability::Availability,
    batch::{self, Batch, Pending, States},
    commit::{self, Reply},
    connection::{Connector, Role},
    error::{WriteError, breaks_connection},
    head::Head,
    outcome::{self, Backend, Fate},
    reader, records,
    write::{self, Write},
};
use crate::domain::{Revision, Timestamp};

/// One lane commits, the other answers.
const LANES: usize = 2;
/// The most changes in a batch; a single write may exceed it.
const MAX_BATCH_CHANGES: usize = 512;
/// After so many repeats a batch takes the lock before it reads.
const MAX_STALE_REPEATS: u32 = 3;
/// What `commit_batch` locks first; taken ahead by a batch that keeps losing.
const BEGIN_LOCKED: &str = "BEGIN; SELECT pg_advisory_xact_lock(8642101, 1)";

/// The way into the queue. Clones share it; the lanes end when all are gone and
/// the queue is empty.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Pending>,
    availability: Availability,
}

impl Writer {
    /// Starts the lanes, which `tasks` owns.
    pub(super) fn start(
        connector: &Connector,
        availability: &Availability,
        head: &Head,
        queue_len: usize,
        tasks: &TaskTracker,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(queue_len);
        let turn = Arc::new(Mutex::new(Queue {
            receiver,
            postponed: Vec::new(),
        }));
        for _ in 0..LANES {
            let lane = Lane {
                turn: Arc::clone(&turn),
                connector: connector.clone(),
                availability: availability.clone(),
                head: head.clone(),
                session: None,
            };
            tasks.spawn(lane.run());
        }
        Self {
            queue: sender,
            availability: availability.clone(),
        }
    }

    /// Submits a write and waits for its result. A caller that stops waiting
    /// before the write was taken from the queue withdraws it.
    pub(super) async fn submit(&self, write: Write) -> Result<write::Written, WriteError> {
        if !self.availability.is_up() {
            return Err(WriteError::Unavailable);
        }
        let (reply, result) = oneshot::channel();
        self.queue
            .try_send(Pending { write, reply })
            .map_err(|_| WriteError::Overloaded)?;
        // A lane that ends without an answer has panicked.
        result.await.unwrap_or(Err(WriteError::Internal))
    }
}

/// A connection, and who is at its other end.
struct Session {
    connection: AsyncPgConnection,
    backend: Backend,
}

/// What waits to be written. Whoever holds it has the turn.
struct Queue {
    receiver: mpsc::Receiver<Pending>,
    /// Writes that the last batch had no room for; fewer than a batch holds.
    postponed: Vec<Pending>,
}

struct Lane {
    turn: Arc<Mutex<Queue>>,
    connector: Connector,
    availability: Availability,
    head: Head,
    session: Option<Session>,
}

/// A batch that is committed, and not answered yet.
struct Committed {
    batch: Batch,
    head_before: Revision,
    committed_at: Timestamp,
}

impl Committed {
    fn answer(self) {
        self.batch.answer(self.head_before, self.committed_at);
    }
}

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
    /// These again, one of which the database refuses.
    Poisoned(Vec<Pending>, String),
}

impl Lane {
    async fn run(mut self) {
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
            committed.into_iter().for_each(Committed::answer);
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
            let locked = repeats >= MAX_STALE_REPEATS;
            let attempt = self.attempt(&mut session, group, locked, postponed).await;
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
                Attempt::Poisoned(poisoned, sqlstate) => {
                    error!(sqlstate, "the database refuses a write");
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
        locked: bool,
        postponed: &mut Vec<Pending>,
    ) -> Result<Attempt, Lost> {
        let connection = &mut session.connection;
        if locked && let Err(error) = connection.batch_execute(BEGIN_LOCKED).await {
            return Err(Lost::before(group, &error));
        }
        let states = match read_states(connection, &group).await {
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
                Err(error) => return Err(Lost::during(batch, stamp, known_head, &error)),
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
            }) => Ok(self.committed(batch, head_before, committed_at)),
            Some(Reply::Conflict { repeated }) => settle(connection, batch, &repeated).await,
            Some(Reply::Refused(sqlstate)) if is_passing(&sqlstate) => {
                warn!(sqlstate, "the database cannot commit a batch now");
                answer_all(batch.into_pending(), &WriteError::Unavailable);
                Ok(Attempt::Done)
            }
            Some(Reply::Refused(sqlstate)) => Ok(Attempt::Poisoned(batch.into_pending(), sqlstate)),
        }
    }

    fn committed(&self, batch: Batch, head_before: Revision, committed_at: Timestamp) -> Attempt {
        self.head.advance(batch.last_revision(head_before));
        Attempt::Commit(Committed {
            batch,
            head_before,
            committed_at,
        })
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

impl Queue {
    /// Takes what is waiting, and waits only if nothing is. Empty: the queue is
    /// closed and all is done.
    async fn take(&mut self) -> Vec<Pending> {
        loop {
            let mut taken = mem::take(&mut self.postponed);
            if taken.is_empty() {
                match self.receiver.recv().await {
                    Some(pending) => taken.push(pending),
                    None => return taken,
                }
            }
            let mut changes: usize = taken.iter().map(|pending| pending.write.len()).sum();
            while changes < MAX_BATCH_CHANGES {
                let Ok(pending) = self.receiver.try_recv() else {
                    break;
                };
                changes += pending.write.len();
                taken.push(pending);
            }
            // Whoever has stopped waiting has withdrawn the write.
            taken.retain(|pending| !pending.reply.is_closed());
            if !taken.is_empty() {
                return taken;
            }
        }
    }
}

async fn read_states(
    connection: &mut AsyncPgConnection,
    group: &[Pending],
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
    Ok(calls
        .into_iter()
        .map(|call| (call.uid, Arc::new(call)))
        .collect())
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
