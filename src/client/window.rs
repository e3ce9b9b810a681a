//! The records of an import that are on their way.

use std::collections::VecDeque;

use prost::Message as _;

use crate::proto::{
    ImportRecord, ImportVoiceCallsRequest, ImportVoiceCallsResponse,
    import_voice_calls_request::Message,
};

/// Records that are kept until they are answered, at most: more than the service
/// works on at once.
const MAX_WINDOW: usize = 4096;
const MAX_WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// The records from the first without an answer on, in order.
#[derive(Default)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// The number of the first on the wire: how many were before it.
    first: i64,
    /// How many of them are sent on this connection; 0 to send them again.
    pub(super) sent: usize,
    bytes: usize,
}

struct Slot {
    record: ImportRecord,
    bytes: usize,
    is_answered: bool,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots.len() >= MAX_WINDOW || self.bytes >= MAX_WINDOW_BYTES
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.slots.len()
    }

    pub(super) fn push(&mut self, record: ImportRecord) {
        let bytes = record.encoded_len();
        self.bytes += bytes;
        self.slots.push_back(Slot {
            record,
            bytes,
            is_answered: false,
        });
    }

    /// The next message to send.
    pub(super) fn send(&mut self) -> ImportVoiceCallsRequest {
        let record = self.slots.get(self.sent).map(|slot| ImportRecord {
            sequence: self.first + i64::try_from(self.sent).unwrap_or(i64::MAX),
            voice_call: slot.record.voice_call.clone(),
        });
        self.sent += 1;
        ImportVoiceCallsRequest {
            message: record.map(Message::Record),
        }
    }

    /// The answer with the record's own sequence, if it is the first to it.
    pub(super) fn answer(
        &mut self,
        answer: ImportVoiceCallsResponse,
    ) -> Option<ImportVoiceCallsResponse> {
        let place = usize::try_from(answer.sequence - self.first).ok()?;
        let slot = self.slots.get_mut(place)?;
        if std::mem::replace(&mut slot.is_answered, true) {
            return None;
        }
        let sequence = slot.record.sequence;
        let done = self.slots.iter().take_while(|slot| slot.is_answered);
        let done = done.count();
        for slot in self.slots.drain(..done) {
            self.bytes -= slot.bytes;
            self.first += 1;
        }
        self.sent = self.sent.saturating_sub(done);
        Some(ImportVoiceCallsResponse { sequence, ..answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(sequences: &[i64]) -> Window {
        let mut window = Window::default();
        for sequence in sequences {
            window.push(ImportRecord {
                sequence: *sequence,
                voice_call: None,
            });
        }
        window
    }

    /// Sends all that is unsent; answers the numbers on the wire.
    fn send_all(window: &mut Window) -> Vec<i64> {
        let mut sent = Vec::new();
        while window.has_unsent() {
            if let Some(Message::Record(record)) = window.send().message {
                sent.push(record.sequence);
            }
        }
        sent
    }

    fn answer(window: &mut Window, sequence: i64) -> Option<i64> {
        let answer = ImportVoiceCallsResponse {
            sequence,
            ..ImportVoiceCallsResponse::default()
        };
        window.answer(answer).map(|answer| answer.sequence)
    }

    #[test]
    fn what_is_sent_again_begins_with_the_first_without_an_answer() {
        let mut window = window(&[70, 10, 70, 40]);
        assert_eq!(send_all(&mut window), [0, 1, 2, 3]);
        assert_eq!(answer(&mut window, 2), Some(70));
        assert_eq!(answer(&mut window, 0), Some(70));
        window.sent = 0;
        // The third is among them, or the second would be written after it.
        assert_eq!(send_all(&mut window), [1, 2, 3]);
        assert_eq!(answer(&mut window, 2), None);
        assert_eq!(answer(&mut window, 1), Some(10));
        assert_eq!(answer(&mut window, 1), None);
        assert_eq!(answer(&mut window, 7), None);
        assert_eq!(answer(&mut window, 3), Some(40));
        assert!(window.is_empty() && window.bytes == 0 && !window.has_unsent());
    }

    #[test]
    fn the_window_is_bounded_by_records_and_bytes() {
        let many = vec![1; MAX_WINDOW];
        assert!(!window(&many[1..]).is_full());
        assert!(window(&many).is_full());
        let mut window = Window::default();
        let long = crate::proto::VoiceCall {
            call_summary: Some("a".repeat(MAX_WINDOW_BYTES / 2)),
            ..Default::default()
        };
        for is_full in [false, true] {
            window.push(ImportRecord {
                sequence: 0,
                voice_call: Some(long.clone()),
            });
            assert_eq!(window.is_full(), is_full);
        }
    }
}
