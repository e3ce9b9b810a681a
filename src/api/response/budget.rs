//! The limit of 2 MiB on everything that the service sends: pages and batches end at their
//! count or at this size, whichever comes first.

use prost::{Message, length_delimiter_len};

/// The most bytes in a message that the service sends.
pub(crate) const MAX_RESPONSE_BYTES: usize = 2 * 1024 * 1024;

/// What a response needs besides its calls: tokens, missing or remaining uids (40 bytes for
/// each of 1000), a revision.
const RESERVED_BYTES: usize = 64 * 1024;
/// What the server may add to a call when it creates it: uid, times, revision.
const ADDED_TO_CALL_BYTES: usize = 128;

/// The bytes that are left in a response.
pub(crate) struct ResponseBudget {
    left: usize,
    added_to_call: usize,
    is_empty: bool,
}

impl ResponseBudget {
    /// The budget of a whole response.
    pub(crate) fn new() -> Self {
        Self {
            left: MAX_RESPONSE_BYTES - RESERVED_BYTES,
            added_to_call: 0,
            is_empty: true,
        }
    }

    /// The budget of a whole response, for calls that are yet to be created.
    pub(crate) fn for_calls_to_create() -> Self {
        Self {
            added_to_call: ADDED_TO_CALL_BYTES,
            ..Self::new()
        }
    }

    /// Reserves the bytes of a call or an event, and returns whether it fits. The first
    /// always fits, as no item is as large as a response.
    pub(crate) fn reserve(&mut self, item: &impl Message) -> bool {
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
