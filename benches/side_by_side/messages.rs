//! What watch streams send, as far as it is read: how many events, and when they
//! were sent.

use prost::{
    bytes::Bytes,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::{etcd, load::Target, plan::Server};

/// What a watched server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// The bare tonic service: each message is an event.
    Floor,
    /// etcd's Watch.
    Etcd,
}

/// `WatchResponse.events`.
const ETCD_EVENTS: u32 = 11;

impl Protocol {
    /// How it is written to.
    pub(crate) const fn target(self) -> Target {
        match self {
            Self::Floor => Target::Voicecall,
            Self::Etcd => Target::Etcd,
        }
    }

    /// Who serves it.
    pub(crate) const fn server(self) -> Server {
        match self {
            Self::Floor => Server::Floor,
            Self::Etcd => Server::Etcd,
        }
    }

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Floor => "/voicecall.v1.VoiceCallService/WatchVoiceCalls",
            Self::Etcd => "/etcdserverpb.Watch/Watch",
        }
    }

    /// The request for everything from now on.
    pub(crate) fn request(self) -> Bytes {
        match self {
            Self::Floor => Bytes::new(),
            Self::Etcd => etcd::watch_request(),
        }
    }

    /// Whether a first message says that the watch has begun.
    pub(crate) const fn confirms(self) -> bool {
        match self {
            Self::Floor => false,
            Self::Etcd => true,
        }
    }

    /// How many events are in a message.
    pub(crate) fn events(self, message: &Bytes) -> u64 {
        match self {
            Self::Floor => 1,
            Self::Etcd => count(message, ETCD_EVENTS),
        }
    }
}

/// How often a message has a field.
fn count(message: &Bytes, wanted: u32) -> u64 {
    let mut rest = &message[..];
    let mut found = 0;
    while let Ok((field, wire_type)) = decode_key(&mut rest) {
        found += u64::from(field == wanted);
        if skip(wire_type, field, &mut rest).is_none() {
            break;
        }
    }
    found
}

fn skip(wire_type: WireType, field: u32, rest: &mut &[u8]) -> Option<()> {
    if wire_type == WireType::LengthDelimited {
        let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
        *rest = rest.get(length..)?;
        return Some(());
    }
    skip_field(wire_type, field, rest, DecodeContext::default()).ok()
}

const MARK: &[u8] = b"sent at microsecond ";
const DIGITS: usize = 16;

/// A summary that tells when it was sent; as long as the others.
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
