//! What the narrowing of a caller means to a write, besides what the state machine makes of it.

use std::sync::Arc;

use crate::{
    api::{context::Context, error::Error, request::commands::Parsed},
    domain::{Narrowing, machine::Rejection},
    store::{WriteError, Written},
};

/// The narrowing of the caller, if it allows what the request asks for.
pub(super) fn of_write(
    parsed: &Parsed,
    context: &Context,
) -> Result<Option<Arc<Narrowing>>, Error> {
    let narrowing = context.narrowing();
    match narrowing {
        // It would tell whether there is a call with this uid.
        Some(_) if parsed.chooses_uid => Err(Error::OutOfScope),
        narrowing => Ok(narrowing),
    }
}

/// The result of a write as a caller with this narrowing may see it. A repeated request is answered
/// from its record: the call may have been purged since, and the narrowing may be another one now.
pub(super) fn result(
    result: Result<Written, WriteError>,
    narrowing: &Narrowing,
) -> Result<Written, WriteError> {
    let hidden = match &result {
        Ok(written) => {
            let mut calls = written.calls.iter();
            let hidden = calls.find(|call| !narrowing.covers(&call.attributes));
            hidden.map(|call| call.uid)
        }
        Err(WriteError::Rejected {
            rejection: Rejection::Purged { uid },
            ..
        }) => Some(*uid),
        Err(_) => None,
    };
    match hidden {
        None => result,
        Some(uid) => Err(WriteError::Rejected {
            place: 0,
            rejection: Rejection::NotFound { uid },
        }),
    }
}
