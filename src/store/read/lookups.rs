//! Reads by uid, coalesced: what is asked for while the reader is busy becomes
//! one query. A read never joins a query that has been sent already, so it sees
//! every write that was acknowledged before it began.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use diesel::QueryResult;
use futures_util::future;
use tokio::{
    runtime::Handle,
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    task::yield_now,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::by_uid::{NarrowedUids, load, load_narrowed_with_head, load_with_head, purged};
use crate::{
    domain::{Call, Narrowing, Revision, Uuid},
    store::{
        database::{Attempts, Availability, Connector, Role, Session},
        error::ReadError,
        tasks::Tasks,
    },
};

/// The most uids in a query; a single read may exceed it.
const MAX_QUERY_UIDS: usize = 1024;

/// Where the result of a look-up goes.
type Reply<T> = oneshot::Sender<Result<T, ReadError>>;

/// What one caller asks for.
#[derive(Debug)]
enum Lookup {
    /// The calls with these uids, as far as the caller may see them.
    Calls {
        uids: Vec<Uuid>,
        /// What the caller may see; `None`: all calls.
        narrowing: Option<Arc<Narrowing>>,
        /// What the log must have reached, as the look-up itself sees it; 0: nothing.
        min_revision: Revision,
        reply: Reply<Vec<Arc<Call>>>,
    },
    /// Whether the call with this uid was purged.
    Purged { uid: Uuid, reply: Reply<bool> },
}

impl Lookup {
    /// How many uids it asks for.
    fn len(&self) -> usize {
        match self {
            Self::Calls { uids, .. } => uids.len(),
            Self::Purged { .. } => 1,
        }
    }

    /// Whether the caller has stopped waiting.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Calls { reply, .. } => reply.is_closed(),
            Self::Purged { reply, .. } => reply.is_closed(),
        }
    }

    /// Returns an error to the caller, which may have stopped waiting.
    fn refuse(self, error: ReadError) {
        match self {
            Self::Calls { reply, .. } => drop(reply.send(Err(error))),
            Self::Purged { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// The way into the queue; the reader ends when it is gone.
#[derive(Debug)]
pub(crate) struct Lookups {
    queue: mpsc::Sender<Lookup>,
    availability: Availability,
}

impl Lookups {
    /// Starts the reader, which `tasks` owns and whose end ends the process, on the thread of its
    /// callers.
    pub(crate) fn start(
        connector: &Connector,
        availability: &Availability,
        queue_len: usize,
        tasks: &Tasks,
        callers: &Handle,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(queue_len);
        let reader = Sessions {
            connector: connector.clone(),
            availability: availability.clone(),
            session: None,
        };
        connector.slots().add_wanted(1);
        let run = reader.run(receiver, tasks.opened.clone());
        let (supervisor, tracker) = (&tasks.supervisor, &tasks.tracker);
        supervisor.essential_on(callers, tracker, "look-ups", run);
        Self {
            queue: sender,
            availability: availability.clone(),
        }
    }

    /// Looks up calls, no uid twice; those that exist and that a caller with this narrowing may
    /// see come back in the order of `uids`, deleted ones included. Of a database that has not reached `min_revision`
    /// nothing is said but [`ReadError::RevisionNotReached`].
    pub(crate) async fn get(
        &self,
        uids: Vec<Uuid>,
        narrowing: Option<Arc<Narrowing>>,
        min_revision: Revision,
    ) -> Result<Vec<Arc<Call>>, ReadError> {
        self.ask(|reply| Lookup::Calls {
            uids,
            narrowing,
            min_revision,
            reply,
        })
        .await
    }

    /// Whether a call with this uid was purged.
    pub(crate) async fn is_purged(&self, uid: Uuid) -> Result<bool, ReadError> {
        self.ask(|reply| Lookup::Purged { uid, reply }).await
    }

    async fn ask<T>(&self, lookup: impl FnOnce(Reply<T>) -> Lookup) -> Result<T, ReadError> {
        if !self.availability.is_up() {
            return Err(ReadError::Unavailable);
        }
        let (reply, result) = oneshot::channel();
        self.queue
            .try_send(lookup(reply))
            .map_err(|error| match error {
                TrySendError::Full(_) => ReadError::Overloaded,
                TrySendError::Closed(_) => ReadError::Stopping,
            })?;
        // A reader that ends without an answer has panicked, perhaps because of this one: it
        // is not to be tried elsewhere.
        result.await.unwrap_or(Err(ReadError::Internal))
    }
}

/// The reader's end of the queue, and its session.
struct Sessions {
    connector: Connector,
    availability: Availability,
    /// Kept from query to query, unless one fails.
    session: Option<Session>,
}

impl Sessions {
    async fn run(mut self, mut queue: mpsc::Receiver<Lookup>, opened: CancellationToken) {
        // Its connection is made before there is anything to look up, and before others have
        // taken the last one.
        opened.cancelled().await;
        if self.availability.is_up() {
            self.session = self.session().await.ok();
        }
        loop {
            let lookups = take(&mut queue).await;
            if lookups.is_empty() {
                return;
            }
            self.answer(lookups).await;
        }
    }

    /// Runs one query for all; one that fails is run again on a new session, where that
    /// may help.
    async fn answer(&mut self, mut lookups: Vec<Lookup>) {
        let mut attempts = Attempts::default();
        loop {
            // Cancelled ones cost the database nothing.
            lookups.retain(|lookup| !lookup.is_abandoned());
            if lookups.is_empty() {
                return;
            }
            let session = match self.session().await {
                Ok(session) => session,
                Err(error) => return refuse(lookups, &error),
            };
            let started = Instant::now();
            let failure = match found(&session, &lookups).await {
                Ok(found) => {
                    self.session = Some(session);
                    return reply(lookups, found);
                }
                Err(error) => session.judge(error).await,
            };
            drop(session);
            if let Err(error) = attempts.after(&failure, started.elapsed()) {
                self.availability.suspect();
                return refuse(lookups, &error);
            }
        }
    }

    async fn session(&mut self) -> Result<Session, ReadError> {
        if let Some(session) = self.session.take()
            && !session.is_lost()
        {
            return Ok(session);
        }
        let session = self.connector.connect_first(Role::Read).await;
        session.map_err(|error| self.availability.no_session("look-ups", error))
    }
}

/// Takes what is waiting, and waits only if nothing is. Empty: the queue is
/// closed.
async fn take(queue: &mut mpsc::Receiver<Lookup>) -> Vec<Lookup> {
    let Some(first) = queue.recv().await else {
        return Vec::new();
    };
    // The runtime runs the task that was woken last first: unless the others that are about to
    // ask get their turn, nearly every query would be for one of them.
    yield_now().await;
    let mut uids = first.len();
    let mut taken = vec![first];
    while uids < MAX_QUERY_UIDS {
        let Ok(lookup) = queue.try_recv() else { break };
        uids += lookup.len();
        taken.push(lookup);
    }
    taken
}

/// Calls, and how far the log reached in the snapshot that they were read in, if anybody asked.
#[derive(Default)]
struct FoundCalls {
    by_uid: HashMap<Uuid, Arc<Call>>,
    head: Option<Revision>,
}

impl FoundCalls {
    fn new(calls: Vec<Call>, head: Option<Revision>) -> Self {
        let calls = calls.into_iter().map(|call| (call.uid, Arc::new(call)));
        Self {
            by_uid: calls.collect(),
            head,
        }
    }

    /// Those that were asked for, as far as a caller with this narrowing may see them.
    fn answer(
        &self,
        uids: &[Uuid],
        narrowing: Option<&Narrowing>,
        min_revision: Revision,
    ) -> Result<Vec<Arc<Call>>, ReadError> {
        if let Some(head) = self.head.filter(|head| *head < min_revision) {
            return Err(ReadError::RevisionNotReached {
                current_revision: head,
            });
        }
        let calls = uids.iter().filter_map(|uid| self.by_uid.get(uid));
        let may_see = |call: &&Arc<Call>| {
            narrowing.is_none_or(|narrowing| narrowing.covers(&call.attributes))
        };
        Ok(calls.filter(may_see).cloned().collect())
    }
}

/// What was found.
struct Found {
    calls: FoundCalls,
    /// For callers who are narrowed.
    narrowed: FoundCalls,
    /// Of the uids that somebody asked this for.
    purged: HashSet<Uuid>,
}

async fn found(session: &Session, lookups: &[Lookup]) -> QueryResult<Found> {
    let (mut uids, mut purged_uids) = (Vec::new(), Vec::new());
    let mut narrowed_uids = NarrowedUids::default();
    let mut needs_head = false;
    for lookup in lookups {
        match lookup {
            Lookup::Calls {
                uids: wanted,
                narrowing: None,
                min_revision,
                ..
            } => {
                uids.extend_from_slice(wanted);
                needs_head |= *min_revision > 0;
            }
            Lookup::Calls {
                uids: wanted,
                narrowing: Some(narrowing),
                ..
            } => narrowed_uids.extend(wanted.iter().copied(), narrowing),
            Lookup::Purged { uid, .. } => purged_uids.push(*uid),
        }
    }
    uids.sort_unstable();
    uids.dedup();
    let calls = async {
        if needs_head {
            let (calls, head) = load_with_head(session, &uids).await?;
            Ok(FoundCalls::new(calls, Some(head)))
        } else if uids.is_empty() {
            Ok(FoundCalls::default())
        } else {
            Ok(FoundCalls::new(load(session, &uids).await?, None))
        }
    };
    let narrowed = async {
        if narrowed_uids.is_empty() {
            return Ok(FoundCalls::default());
        }
        let (calls, head) = load_narrowed_with_head(session, &narrowed_uids).await?;
        Ok(FoundCalls::new(calls, Some(head)))
    };
    let purged = async {
        if purged_uids.is_empty() {
            return Ok(Vec::new());
        }
        purged(session, &purged_uids).await
    };
    let (calls, narrowed, purged) = future::try_join3(calls, narrowed, purged).await?;
    Ok(Found {
        calls,
        narrowed,
        purged: purged.into_iter().collect(),
    })
}

fn reply(lookups: Vec<Lookup>, found: Found) {
    let mut answers = Vec::with_capacity(lookups.len());
    for lookup in lookups {
        match lookup {
            Lookup::Calls {
                uids,
                narrowing,
                min_revision,
                reply,
            } => {
                let calls = match narrowing {
                    None => &found.calls,
                    Some(_) => &found.narrowed,
                };
                let answer = calls.answer(&uids, narrowing.as_deref(), min_revision);
                answers.push((reply, answer));
            }
            // The caller may have stopped waiting.
            Lookup::Purged { uid, reply } => drop(reply.send(Ok(found.purged.contains(&uid)))),
        }
    }
    // Ours are gone first, so that a caller alone with a call owns it.
    drop(found);
    for (reply, answer) in answers {
        let _ = reply.send(answer);
    }
}

fn refuse(lookups: Vec<Lookup>, error: &ReadError) {
    for lookup in lookups {
        lookup.refuse(error.clone());
    }
}
