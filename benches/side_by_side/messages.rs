//! The messages of watch streams, decoded only as far as needed: the number of events, and when
//! they were sent.

use prost::{
    Message,
    bytes::Bytes,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use voicecall::proto::{self, watch_voice_calls_request};

use crate::{etcd, load::Target, plan::Server};

/// The API of a watched server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// The service's.
    Voicecall,
    /// The bare tonic service: each message is an event.
    Floor,
    /// etcd's Watch.
    Etcd,
}

/// `WatchVoiceCallsResponse.event_batch`, and its `EventBatch.events`.
const EVENT_BATCH: u32 = 3;
const EVENTS: u32 = 1;
/// etcd's `WatchResponse.events`.
const ETCD_EVENTS: u32 = 11;

impl Protocol {
    /// The API that it is written to with.
    pub(crate) const fn target(self) -> Target {
        match self {
            Self::Voicecall | Self::Floor => Target::Voicecall,
            Self::Etcd => Target::Etcd,
        }
    }

    /// The server that is watched.
    pub(crate) const fn server(self) -> Server {
        match self {
            Self::Voicecall => Server::Ours,
            Self::Floor => Server::Floor,
            Self::Etcd => Server::Etcd,
        }
    }

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Voicecall | Self::Floor => "/voicecall.v1.VoiceCallService/WatchVoiceCalls",
            Self::Etcd => "/etcdserverpb.Watch/Watch",
        }
    }

    /// The request for all new changes, or for those of one member of staff.
    pub(crate) fn request(self, staff: Option<String>) -> Bytes {
        match self {
            Self::Voicecall | Self::Floor => {
                let start = watch_voice_calls_request::Start::Live(proto::Live {});
                let request = proto::WatchVoiceCallsRequest {
                    filter: staff.map(|staff| proto::VoiceCallFilter {
                        staff_uids: vec![staff],
                        ..Default::default()
                    }),
                    start: Some(start),
                    ..Default::default()
                };
                request.encode_to_vec().into()
            }
            Self::Etcd => etcd::watch_request(),
        }
    }

    /// Whether the first message reports that the watch has begun.
    pub(crate) const fn confirms(self) -> bool {
        match self {
            Self::Floor => false,
            Self::Voicecall | Self::Etcd => true,
        }
    }

    /// The number of events in a message.
    pub(crate) fn events(self, message: &Bytes) -> u64 {
        match self {
            Self::Voicecall => fields(message, EVENT_BATCH)
                .map(|batch| fields(batch, EVENTS).count() as u64)
                .sum(),
            Self::Floor => 1,
            Self::Etcd => fields(message, ETCD_EVENTS).count() as u64,
        }
    }
}

/// The messages in a field of a message.
fn fields(message: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    let mut rest = message;
    std::iter::from_fn(move || {
        loop {
            let (field, wire_type) = decode_key(&mut rest).ok()?;
            if wire_type != WireType::LengthDelimited {
                skip_field(wire_type, field, &mut rest, DecodeContext::default()).ok()?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let (content, after) = rest.split_at_checked(length)?;
            rest = after;
            if field == wanted {
                return Some(content);
            }
        }
    })
}

const MARK: &[u8] = b"sent at microsecond ";
const DIGITS: usize = 16;

/// A summary that contains the time at which it is sent, as long as other summaries.
pub(crate) fn marker(micros: u64) -> String {
    format!("sent at microsecond {micros:016} of the run")
}

/// When the calls in a message were sent.
pub(crate) fn sent_at(message: &[u8]) -> impl Iterator<Item = u64> {
    message
        .windows(MARK.len() + DIGITS)
        .filter_map(|window| window.strip_prefix(MARK))
        .filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
}
