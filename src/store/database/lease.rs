//! A session that is lent to one read.
//!
//! A read whose caller has gone may still run a statement. The session is not fit for
//! another read until that statement has ended, and the statement is of use to nobody: it is
//! cancelled. A cancel may arrive late and hit whatever the session runs by then, so a session
//! whose statement was cancelled is not lent again.

use std::{ops::Deref, time::Duration};

use deadpool::managed::Object;
use tokio::{runtime::Handle, time::timeout};

use super::{pool::Sessions, session::Session};

/// How long an abandoned statement may take to end by itself: most reads take less, and
/// a cancel costs a connection.
const END_BY_ITSELF: Duration = Duration::from_millis(20);
/// How long a cancel may take, its connection included. A statement that it has not reached
/// ends at the read's deadline.
const CANCEL_TIME: Duration = Duration::from_secs(2);

/// See the module. It keeps the session's place in the pool until an abandoned statement has
/// ended or its cancel was sent. A statement that the cancel does not reach within
/// `CANCEL_TIME` runs on beside those of the pool, until the read's deadline.
pub(super) struct Lease {
    session: Option<Object<Sessions>>,
}

impl Lease {
    pub(super) fn new(session: Object<Sessions>) -> Self {
        Self {
            session: Some(session),
        }
    }

    /// The read is done: another one may have the session.
    pub(super) fn give_back(mut self) {
        self.session = None;
    }

    /// The session is of no more use.
    pub(super) fn discard(mut self) {
        self.session.take().map(Object::take);
    }
}

impl Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session.as_ref().expect("it is there until the end")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Without a runtime the process ends, and all its connections with it.
        if let (Some(session), Ok(_)) = (self.session.take(), Handle::try_current()) {
            let tasks = session.tasks().clone();
            tasks.spawn(end_abandoned(session));
        }
    }
}

/// Waits until the statement that the session runs has ended.
async fn end_abandoned(session: Object<Sessions>) {
    // What is sent behind the statement is answered after it.
    if let Ok(Ok(())) = timeout(END_BY_ITSELF, session.batch("ROLLBACK")).await {
        return;
    }
    let _ = timeout(CANCEL_TIME, session.cancel()).await;
    drop(Object::take(session));
}
