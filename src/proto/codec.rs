//! The codec of every RPC. It differs from prost's in that bytes which cannot be decoded are
//! the client's mistake (`MALFORMED_MESSAGE`), not an internal error, in that the server looks
//! at the size of a request before it decodes it, and in its buffers.

use std::marker::PhantomData;

#[cfg(feature = "service")]
use bytes::Buf;
use prost::{Message, Name};
use tonic::{
    Code, Status,
    codec::{self, BufferSettings, DecodeBuf, EncodeBuf},
};
use tonic_types::{ErrorDetails, StatusExt};

use super::{ERROR_DOMAIN, ErrorReason};

/// Encodes `T`, decodes `U`.
#[derive(Debug)]
pub(crate) struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Encoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(PhantomData)
    }
}

/// Each response begins with a buffer of this size, which lives as long as its stream: enough
/// for a call, and little for ten thousand watchers. It grows as needed.
const BUFFER_BYTES: usize = 1024;
/// A stream is written when this much is encoded, or when nothing more is ready.
const YIELD_BYTES: usize = 32 * 1024;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// Encodes `T`.
#[derive(Debug)]
pub(crate) struct Encoder<T>(PhantomData<T>);

impl<T: Message> codec::Encoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }

    fn encode(&mut self, message: T, bytes: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // The buffer grows once, instead of in several steps that each copy it.
        bytes.reserve(message.encoded_len());
        message.encode(bytes).expect("the buffer grows as needed");
        Ok(())
    }
}

/// Decodes `U`.
#[derive(Debug)]
pub(crate) struct Decoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        #[cfg(feature = "service")]
        super::request_size::check::<U>(bytes.chunk())?;
        U::decode(bytes).map(Some).map_err(|_| malformed_message())
    }
}

/// The status of a message that cannot be decoded.
pub(crate) fn malformed_message() -> Status {
    Status::with_error_details(
        Code::InvalidArgument,
        "the bytes are not a valid message of this API",
        details(ErrorReason::MalformedMessage),
    )
}

/// The details of a status with this reason.
pub(super) fn details(reason: ErrorReason) -> ErrorDetails {
    let reason = reason.as_str_name();
    let reason = reason.trim_start_matches("ERROR_REASON_");
    ErrorDetails::with_error_info(reason, ERROR_DOMAIN, [])
}
