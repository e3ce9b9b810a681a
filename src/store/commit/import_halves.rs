//! An import that the database refuses, in halves: the record at fault is found while the committer
//! has the commit permit, so that no later record of the same call overtakes an earlier one.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    planner::Pending,
    write::{Action, RecordError, Write, Written},
};
use crate::store::error::WriteError;

/// The halves of an import, in order, and what joins their results for its caller.
pub(crate) struct Halves {
    pub(crate) first: Pending,
    pub(crate) second: Pending,
    joined: Pending,
    results: [oneshot::Receiver<Result<Written, WriteError>>; 2],
}

impl Halves {
    /// Takes an import of several records apart; anything else comes back.
    pub(crate) fn of(pending: Pending) -> Result<Self, Box<Pending>> {
        let (records, policy) = match &pending.write.action {
            Action::Import(records, policy) if records.len() > 1 => (Arc::clone(records), *policy),
            _ => return Err(Box::new(pending)),
        };
        let half = |records: &[_]| {
            let (reply, result) = oneshot::channel();
            let write = Write {
                action: Action::Import(records.into(), policy),
                request: None,
                principal: pending.write.principal.clone(),
                narrowing: pending.write.narrowing.clone(),
            };
            let half = Pending {
                write,
                reply,
                caller: pending.caller.clone(),
            };
            (half, result)
        };
        let (first, second) = records.split_at(records.len() / 2);
        let ((first, one), (second, other)) = (half(first), half(second));
        Ok(Self {
            first,
            second,
            joined: pending,
            results: [one, other],
        })
    }

    /// The halves, and what waits for both and answers.
    pub(crate) fn take_apart(self) -> ([Pending; 2], impl Future<Output = ()> + Send) {
        let Self {
            first,
            second,
            joined,
            results,
        } = self;
        let join = async move {
            let mut whole = Written::default();
            for result in results {
                match result.await.unwrap_or(Err(WriteError::OutcomeUnknown)) {
                    Ok(half) => {
                        whole.revision = whole.revision.max(half.revision);
                        whole.imported.extend(half.imported);
                    }
                    Err(error) => return joined.answer(Err(error)),
                }
            }
            joined.answer(Ok(whole));
        };
        ([first, second], join)
    }
}

/// What the one record is answered that the database refuses.
pub(crate) fn refused() -> Written {
    Written {
        imported: vec![Err(RecordError::Refused)],
        ..Written::default()
    }
}
