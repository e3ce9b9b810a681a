//! The message `EventBatch`, written by hand. It is decoded like any other message, but what
//! the server sends is composed of parts that were encoded once for all watchers.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType, message, string},
};

use super::VoiceCallEvent;

const EVENTS: u32 = 1;
const RESUME_TOKEN: u32 = 2;

/// Changes, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventBatch {
    /// The events. A batch may end within a transaction.
    pub events: Vec<VoiceCallEvent>,
    /// Resumes after the whole batch.
    pub resume_token: String,
    /// More events, already encoded as fields of this message.
    encoded: Bytes,
}

impl EventBatch {
    /// A batch of events that were encoded by [`put_event`].
    #[cfg(feature = "service")]
    pub(crate) fn encoded(encoded: Bytes, resume_token: String) -> Self {
        Self {
            events: Vec::new(),
            resume_token,
            encoded,
        }
    }
}

/// Appends an event to encoded ones, from its type and its encoded change.
#[cfg(feature = "service")]
pub(crate) fn put_event(batch: &mut Vec<u8>, event_type: i32, change: &[u8]) {
    let change_len = 1 + prost::length_delimiter_len(change.len()) + change.len();
    let type_len = encoding::int32::encoded_len(1, &event_type);
    encoding::encode_key(EVENTS, WireType::LengthDelimited, batch);
    encoding::encode_varint((type_len + change_len) as u64, batch);
    encoding::int32::encode(1, &event_type, batch);
    encoding::encode_key(2, WireType::LengthDelimited, batch);
    encoding::encode_varint(change.len() as u64, batch);
    batch.extend_from_slice(change);
}

impl Message for EventBatch {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.encoded);
        message::encode_repeated(EVENTS, &self.events, buffer);
        if !self.resume_token.is_empty() {
            string::encode(RESUME_TOKEN, &self.resume_token, buffer);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            EVENTS => message::merge_repeated(wire_type, &mut self.events, buffer, context),
            RESUME_TOKEN => string::merge(wire_type, &mut self.resume_token, buffer, context),
            _ => encoding::skip_field(wire_type, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let token = if self.resume_token.is_empty() {
            0
        } else {
            string::encoded_len(RESUME_TOKEN, &self.resume_token)
        };
        self.encoded.len() + message::encoded_len_repeated(EVENTS, &self.events) + token
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
