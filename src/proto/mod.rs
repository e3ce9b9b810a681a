//! The wire contract: messages, client and server stubs, generated from `proto/`.
//!
//! It is what the server and the client library share, and knows neither of them. Three
//! parts are written by hand: the codec of every RPC, the limits on the size of a request, and
//! the one message that the server encodes ahead of time.

#![expect(
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::too_many_lines,
    reason = "generated"
)]

pub(crate) mod codec;
mod event_batch;
#[cfg(feature = "service")]
pub(crate) mod request_size;

pub use event_batch::EventBatch;
#[cfg(feature = "service")]
pub(crate) use event_batch::put_event;

tonic::include_proto!("voicecall.v1");

/// The compiled descriptors of `proto/`, with everything they import.
pub const DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/voicecall_descriptors.bin"));

/// The full name of the service, for health checks.
pub const SERVICE_NAME: &str = "voicecall.v1.VoiceCallService";

/// The domain of the service's errors in `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "voicecall.v1";
