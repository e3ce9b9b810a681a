//! Reads by uid, coalesced: what is asked for while the reader is busy becomes
//! one query. A read never joins a query that has been sent already, so it sees
//! every write that was answered before it began.

use std::{collections::HashMap, sync::Arc};

use diesel::{
    pg::Pg,
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Array, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::yield_now,
};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::{
    availability::Availability,
    connection::{Connector, Role},
    error::{ReadError, is_lost},
    row::CallRow,
    schema::{purged_calls, voice_calls},
};
use crate::domain::{Call, Uuid};

/// The most uids in a query; a single read may exceed it.
const MAX_QUERY_UIDS: usize = 1024;

/// One caller's wish, and where its answer goes.
#[derive(Debug)]
struct Lookup {
    uids: Vec<Uuid>,
    reply: oneshot::Sender<Result<Vec<Arc<Call>>, ReadError>>,
}

/// The way into the queue; the reader ends when it is gone.
#[derive(Debug)]
pub(super) struct Reader {
    queue: mpsc::Sender<Lookup>,
    availability: Availability,
}

impl Reader {
    /// Starts the reader, which `tasks` owns, on the thread of its callers.
    pub(super) fn start(
        connector: &Connector,
        availability: &Availability,
        queue_len: usize,
        tasks: &TaskTracker,
        callers: &Handle,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(queue_len);
        let reader = run(receiver, connector.clone(), availability.clone());
        tasks.spawn_on(reader, callers);
        Self {
            queue: sender,
            availability: availability.clone(),
        }
    }

    /// Looks up calls, no uid twice; those that exist come back in the order of
    /// `uids`, deleted ones included.
    pub(super) async fn get(&self, uids: Vec<Uuid>) -> Result<Vec<Arc<Call>>, ReadError> {
        if !self.availability.is_up() {
            return Err(ReadError::Unavailable);
        }
        let (reply, result) = oneshot::channel();
        self.queue
            .try_send(Lookup { uids, reply })
            .map_err(|_| ReadError::Overloaded)?;
        // A reader that ends without an answer has panicked.
        result.await.unwrap_or(Err(ReadError::Internal))
    }
}

async fn run(mut queue: mpsc::Receiver<Lookup>, connector: Connector, availability: Availability) {
    let mut session: Option<AsyncPgConnection> = None;
    loop {
        let lookups = take(&mut queue).await;
        if lookups.is_empty() {
            return;
        }
        if session.is_none() {
            session = connector.connect(Role::Read).await.ok();
        }
        let Some(connection) = session.as_mut() else {
            availability.report_down();
            refuse(lookups, &ReadError::Unavailable);
            continue;
        };
        match answer(connection, lookups).await {
            Ok(()) => {}
            Err(broken) => {
                if broken {
                    availability.report_down();
                }
                session = None;
            }
        }
    }
}

/// Takes what is waiting, and waits only if nothing is. Empty: the queue is
/// closed.
async fn take(queue: &mut mpsc::Receiver<Lookup>) -> Vec<Lookup> {
    let Some(first) = queue.recv().await else {
        return Vec::new();
    };
    // The runtime runs whoever was woken last first: without a turn for those who
    // are about to ask too, nearly every query would be for one.
    yield_now().await;
    let mut uids = first.uids.len();
    let mut taken = vec![first];
    while uids < MAX_QUERY_UIDS {
        let Ok(lookup) = queue.try_recv() else { break };
        uids += lookup.uids.len();
        taken.push(lookup);
    }
    taken
}

/// Runs one query for all. An error has answered everybody and says whether the
/// connection is broken.
async fn answer(connection: &mut AsyncPgConnection, lookups: Vec<Lookup>) -> Result<(), bool> {
    let mut uids: Vec<Uuid> = lookups
        .iter()
        .flat_map(|lookup| &lookup.uids)
        .copied()
        .collect();
    uids.sort_unstable();
    uids.dedup();
    match load(connection, &uids).await {
        Ok(calls) => {
            let calls: HashMap<Uuid, Arc<Call>> = calls
                .into_iter()
                .map(|call| (call.uid, Arc::new(call)))
                .collect();
            let found: Vec<Vec<Arc<Call>>> = lookups
                .iter()
                .map(|lookup| {
                    let uids = lookup.uids.iter();
                    uids.filter_map(|uid| calls.get(uid).cloned()).collect()
                })
                .collect();
            // Ours are gone first, so that a caller alone with a call owns it.
            drop(calls);
            for (lookup, found) in lookups.into_iter().zip(found) {
                // A caller that has gone wants no answer.
                let _ = lookup.reply.send(Ok(found));
            }
            Ok(())
        }
        Err(error) if is_lost(connection, &error).await => {
            warn!("a reader lost its connection to the database");
            refuse(lookups, &ReadError::Unavailable);
            Err(true)
        }
        Err(error) => {
            error!(%error, "the database refuses a look-up");
            refuse(lookups, &ReadError::Internal);
            Err(false)
        }
    }
}

fn refuse(lookups: Vec<Lookup>, error: &ReadError) {
    for lookup in lookups {
        let _ = lookup.reply.send(Err(error.clone()));
    }
}

/// The calls with these uids, in no order, by a statement that is prepared once
/// on each connection.
pub(super) async fn load(
    connection: &mut AsyncPgConnection,
    uids: &[Uuid],
) -> QueryResult<Vec<Call>> {
    let rows: Vec<CallRow> = ByUid { uids }.load(connection).await?;
    Ok(rows.into_iter().map(Call::from).collect())
}

/// Those of these uids whose calls were purged.
pub(super) async fn purged(
    connection: &AsyncPgConnection,
    uids: &[Uuid],
) -> QueryResult<Vec<Uuid>> {
    purged_calls::table
        .filter(purged_calls::uid.eq_any(uids))
        .select(purged_calls::uid)
        .load(&mut &*connection)
        .await
}

struct ByUid<'a> {
    uids: &'a [Uuid],
}

impl Query for ByUid<'_> {
    type SqlType = voice_calls::SqlType;
}

impl QueryId for ByUid<'_> {
    type QueryId = ByUid<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Pg> for ByUid<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // The columns in the order of the schema, which CallRow has too.
        out.push_sql(
            "SELECT uid, duration, created_at, updated_at, status, direction, \
             staff_uid, client_uid, from_number, to_number, recording_url, call_summary, \
             external_app_url, handled_by_staff_uid, handled_at, deleted_at, revision \
             FROM voice_calls WHERE uid = ANY(",
        );
        out.push_bind_param::<Array<SqlUuid>, _>(&self.uids)?;
        out.push_sql(")");
        Ok(())
    }
}
