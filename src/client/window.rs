//! The window of an import: the records that have been read and may have to be sent again.
//!
//! All of them are sent again, in order, when the stream breaks: the answered ones too, because
//! responses arrive out of order, and with REPLACE the older of two records of one call must not be
//! written last.
//!
//! On the wire records are numbered from 0; the sequences of the caller need not be unique.

use std::collections::VecDeque;

use prost::Message as _;

use crate::proto::{
    ImportRecord, ImportVoiceCallsRequest, ImportVoiceCallsResponse,
    import_voice_calls_request::Message,
};

/// The most records that are kept until they are acknowledged: more than the service has in
/// progress at once.
const MAX_WINDOW: usize = 4096;
const MAX_WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// All records from the first unacknowledged one on, in order.
#[derive(Default)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// The number on the wire of the first record: how many were before it.
    first: i64,
    /// How many of the records are sent on this connection; 0 to send all of them again.
    pub(super) sent: usize,
    bytes: usize,
}

struct Slot {
    record: ImportRecord,
    bytes: usize,
    is_acknowledged: bool,
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
            is_acknowledged: false,
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

    /// Acknowledges a record, and returns the response with the record's own sequence. `None`
    /// for a record that is already acknowledged.
    pub(super) fn acknowledge(
        &mut self,
        response: ImportVoiceCallsResponse,
    ) -> Option<ImportVoiceCallsResponse> {
        let place = usize::try_from(response.sequence - self.first).ok()?;
        let slot = self.slots.get_mut(place)?;
        if std::mem::replace(&mut slot.is_acknowledged, true) {
            return None;
        }
        let sequence = slot.record.sequence;
        let done = self.slots.iter().take_while(|slot| slot.is_acknowledged);
        let done = done.count();
        for slot in self.slots.drain(..done) {
            self.bytes -= slot.bytes;
            self.first += 1;
        }
        self.sent = self.sent.saturating_sub(done);
        Some(ImportVoiceCallsResponse {
            sequence,
            ..response
        })
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

    /// Sends all unsent records, and returns their numbers on the wire.
    fn send_all(window: &mut Window) -> Vec<i64> {
        let mut sent = Vec::new();
        while window.has_unsent() {
            if let Some(Message::Record(record)) = window.send().message {
                sent.push(record.sequence);
            }
        }
        sent
    }

    fn acknowledge(window: &mut Window, sequence: i64) -> Option<i64> {
        let response = ImportVoiceCallsResponse {
            sequence,
            ..ImportVoiceCallsResponse::default()
        };
        window
            .acknowledge(response)
            .map(|response| response.sequence)
    }

    #[test]
    fn records_are_sent_again_from_the_first_unacknowledged_one_on() {
        let mut window = window(&[70, 10, 70, 40]);
        assert_eq!(send_all(&mut window), [0, 1, 2, 3]);
        assert_eq!(acknowledge(&mut window, 2), Some(70));
        assert_eq!(acknowledge(&mut window, 0), Some(70));
        window.sent = 0;
        // The third is sent again too: otherwise the second would be written after it.
        assert_eq!(send_all(&mut window), [1, 2, 3]);
        assert_eq!(acknowledge(&mut window, 2), None);
        assert_eq!(acknowledge(&mut window, 1), Some(10));
        assert_eq!(acknowledge(&mut window, 1), None);
        assert_eq!(acknowledge(&mut window, 7), None);
        assert_eq!(acknowledge(&mut window, 3), Some(40));
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
