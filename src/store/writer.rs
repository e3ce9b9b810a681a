//! The group-commit writer: a bounded queue, and lanes that each take what is
//! waiting, run it through the state machine and commit it in one statement.
//!
//! A lane is to the others what another replica is: the database orders their
//! commits, and a batch that was computed from a state that is no longer so is
//! computed again. There are two, so that one lane prepares and reads its batch
//! while the database commits the other's.

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
    write::{Write, Written},
};

/// Lanes; see the module.
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
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..LANES {
            let lane = Lane {
                queue: Arc::clone(&receiver),
                connector: connector.clone(),
                availability: availability.clone(),
                head: head.clone(),
                session: None,
                postponed: Vec::new(),
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
    pub(super) async fn submit(&self, write: Write) -> Result<Written, WriteError> {
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

struct Lane {
    queue: Arc<Mutex<mpsc::Receiver<Pending>>>,
    connector: Connector,
    availability: Availability,
    head: Head,
    session: Option<Session>,
    /// Writes that the last batch had no room for; fewer than a batch holds.
    postponed: Vec<Pending>,
}

/// What is left to do after an attempt.
enum Attempt {
    /// Nothing.
    Done,
    /// These again: something they were computed from has changed.
    Again(Vec<Pending>),
    /// These again, one of which the database refuses.
    Poisoned(Vec<Pending>, String),
}

impl Lane {
    async fn run(mut self) {
        loop {
            let taken = self.take().await;
            if taken.is_empty() {
                return;
            }
            let mut groups = vec![taken];
            while let Some(group) = groups.pop() {
                if let Some(poisoned) = self.write(group).await {
                    groups.extend(halve(poisoned));
                }
            }
        }
    }

    /// Takes what is waiting, and waits only if nothing is. Empty: the queue is
    /// closed and all is done.
    async fn take(&mut self) -> Vec<Pending> {
        loop {
            let mut taken = mem::take(&mut self.postponed);
            if taken.is_empty() {
                let mut queue = self.queue.lock().await;
                match queue.recv().await {
                    Some(pending) => taken.push(pending),
                    None => return taken,
                }
                fill(&mut taken, &mut queue);
            } else if let Ok(mut queue) = self.queue.try_lock() {
                // Held, the queue is another lane's, which waits on it in vain.
                fill(&mut taken, &mut queue);
            }
            // Whoever has stopped waiting has withdrawn the write.
            taken.retain(|pending| !pending.reply.is_closed());
            if !taken.is_empty() {
                return taken;
            }
        }
    }

    /// Writes a group, however often that takes; answers the group that the
    /// database refuses as a whole, so that it can be halved.
    async fn write(&mut self, mut group: Vec<Pending>) -> Option<Vec<Pending>> {
        let mut repeats = 0;
        loop {
            let Some(mut session) = self.session().await else {
                answer_all(group, &WriteError::Unavailable);
                return None;
            };
            let locked = repeats >= MAX_STALE_REPEATS;
            match self.attempt(&mut session, group, locked).await {
                Ok(outcome) => {
                    self.session = Some(session);
                    match outcome {
                        Attempt::Done => return None,
                        Attempt::Again(again) => group = again,
                        Attempt::Poisoned(mut poisoned, sqlstate) => {
                            if poisoned.len() > 1 {
                                return Some(poisoned);
                            }
                            error!(sqlstate, "the database refuses a write");
                            answer_all(mem::take(&mut poisoned), &WriteError::Internal);
                            return None;
                        }
                    }
                }
                Err(lost) => match self.after_loss(session.backend, lost).await {
                    Some(again) => group = again,
                    None => return None,
                },
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
    ) -> Result<Attempt, Lost> {
        let connection = &mut session.connection;
        if locked && let Err(error) = connection.batch_execute(BEGIN_LOCKED).await {
            return Err(Lost::before(group, &error));
        }
        let states = match read_states(connection, &group).await {
            Ok(states) => states,
            Err(error) => return Err(Lost::before(group, &error)),
        };
        let (batch, postponed) = batch::plan(group, &states);
        self.postponed.extend(postponed);
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
            }) => {
                let changes = batch.answer(head_before, committed_at);
                self.head.advance(head_before + changes.len() as i64);
                Ok(Attempt::Done)
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

    /// After the session was lost: answers what can be answered, and returns
    /// what is to be tried again.
    async fn after_loss(&mut self, backend: Backend, lost: Lost) -> Option<Vec<Pending>> {
        self.availability.report_down();
        match lost {
            Lost::Before(group) => {
                answer_all(group, &WriteError::Unavailable);
                None
            }
            Lost::During {
                batch,
                stamp,
                known_head,
            } => match outcome::find(&self.connector, &backend, stamp, known_head).await {
                Fate::Committed {
                    head_before,
                    committed_at,
                } => {
                    let changes = batch.answer(head_before, committed_at);
                    self.head.advance(head_before + changes.len() as i64);
                    None
                }
                Fate::NotCommitted => {
                    // The finding connected, so the next session can.
                    Some(batch.into_pending())
                }
                Fate::Unknown => {
                    error!("cannot find out whether a batch was committed");
                    answer_all(batch.into_pending(), &WriteError::OutcomeUnknown);
                    None
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
        known_head: i64,
    },
}

impl Lost {
    fn before(group: Vec<Pending>, error: &diesel::result::Error) -> Self {
        log_unless_away(error);
        Self::Before(group)
    }

    fn during(batch: Batch, stamp: i64, known_head: i64, error: &diesel::result::Error) -> Self {
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

fn fill(taken: &mut Vec<Pending>, queue: &mut mpsc::Receiver<Pending>) {
    let mut changes: usize = taken.iter().map(|pending| pending.write.len()).sum();
    while changes < MAX_BATCH_CHANGES {
        let Ok(pending) = queue.try_recv() else { break };
        changes += pending.write.len();
        taken.push(pending);
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
        // Without a request id there is nothing to retry with; the caller of
        // submit knows which it was.
        pending.answer(Err(error.clone()));
    }
}
