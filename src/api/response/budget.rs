//! The limit of 2 MiB on messages with calls or changes: pages, batch look-ups and chunks end at
//! their count or at this size, whichever comes first; a batch of calls to create that would
//! exceed it is refused.

use prost::{Message, length_delimiter_len};

/// The most bytes in a message that the service sends.
pub(crate) const MAX_RESPONSE_BYTES: usize = 2 * 1024 * 1024;

/// What a response needs besides its calls: tokens, missing or remaining uids (40 bytes for
/// each of 1000), a revision.
const RESERVED_BYTES: usize = 64 * 1024;
/// What the server may add to a call when it creates it: uid, times, revision.
const ADDED_TO_CALL_BYTES: usize = 128;

/// More than the largest call: a summary of 64 KiB, two URLs of 2 KiB, five texts of 64
/// characters.
const MAX_CALL_BYTES: usize = 72 * 1024;

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

    /// The budget of a response that ends with the first item that does not fit: it is in it.
    pub(crate) fn with_one_too_many() -> Self {
        let whole = Self::new();
        Self {
            left: whole.left - MAX_CALL_BYTES,
            ..whole
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ExportVoiceCallsResponse, VoiceCall};

    #[test]
    fn a_response_with_one_call_too_many_is_within_the_limit() {
        let text = |len| Some("\u{10348}".repeat(len));
        let largest = VoiceCall {
            uid: "01a21d77-e38e-71f6-ab74-053c687b7972".to_owned(),
            staff_uid: text(64),
            client_uid: text(64),
            from_number: text(64),
            to_number: text(64),
            handled_by_staff_uid: text(64),
            recording_url: text(512),
            external_app_url: text(512),
            call_summary: text(16 * 1024),
            revision: i64::MAX,
            ..VoiceCall::default()
        };
        let mut budget = ResponseBudget::with_one_too_many();
        let mut response = ExportVoiceCallsResponse::default();
        let mut fits = true;
        while fits {
            fits = budget.reserve(&largest);
            response.voice_calls.push(largest.clone());
        }
        let len = response.encoded_len();
        assert!(len <= MAX_RESPONSE_BYTES, "{len}");
        assert!(len > MAX_RESPONSE_BYTES / 2, "{len}");
    }
}
