//! Nothing the service sends is larger than 2 MiB: pages and batches end at
//! their count or at this size, whichever comes first.

use prost::{Message, length_delimiter_len};

/// The most bytes in a message that the service sends.
pub(crate) const MAX_ANSWER_BYTES: usize = 2 * 1024 * 1024;

/// What an answer needs besides its calls: tokens, uids that are missing or
/// remain (40 bytes for each of 1000), a revision.
const RESERVED_BYTES: usize = 64 * 1024;
/// What the server may add to a call when it creates it: uid, times, revision.
const ADDED_TO_CALL_BYTES: usize = 128;

/// The room that is left in an answer.
pub(crate) struct ResponseBudget {
    left: usize,
    added_to_call: usize,
    is_empty: bool,
}

impl ResponseBudget {
    /// A whole answer.
    pub(crate) fn new() -> Self {
        Self {
            left: MAX_ANSWER_BYTES - RESERVED_BYTES,
            added_to_call: 0,
            is_empty: true,
        }
    }

    /// A whole answer, for calls that are not created yet.
    pub(crate) fn for_calls_to_create() -> Self {
        Self {
            added_to_call: ADDED_TO_CALL_BYTES,
            ..Self::new()
        }
    }

    /// Takes the room for a call or an event, if there is enough. The first
    /// always fits, as none is that large.
    pub(crate) fn take(&mut self, item: &impl Message) -> bool {
        let len = item.encoded_len() + self.added_to_call;
        let needed = 1 + length_delimiter_len(len) + len;
        let fits = needed <= self.left || self.is_empty;
        if fits {
            self.left = self.left.saturating_sub(needed);
            self.is_empty = false;
        }
        fits
    }
}
