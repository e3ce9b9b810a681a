//! Chunks of calls, for streams of them.

use super::{budget::ResponseBudget, calls};
use crate::{
    feed::{SnapshotError, UnsentCalls},
    proto,
};

/// The next calls that fit into one response.
///
/// # Errors
/// See [`UnsentCalls::pop`].
pub(crate) fn next_chunk(unsent: &mut UnsentCalls) -> Result<Vec<proto::VoiceCall>, SnapshotError> {
    let mut budget = ResponseBudget::with_one_too_many();
    let mut voice_calls = Vec::new();
    while let Some(call) = unsent.pop()? {
        let message = calls::call(call);
        let fits = budget.reserve(&message);
        voice_calls.push(message);
        if !fits {
            break;
        }
    }
    Ok(voice_calls)
}
