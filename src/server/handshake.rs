//! The beginning of a connection: TLS, if the server has it, then the client's HTTP/2 preface and
//! its SETTINGS.
//!
//! They are read here, because HTTP/2 itself would wait for them without a bound, and because
//! nothing has to be said to a client that has not sent them. A client that speaks TLS to a
//! plaintext port, or plaintext to a TLS port, gets an error that says so.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy, sink},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use crate::auth::Certificate;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The type of a SETTINGS frame.
const SETTINGS: u8 = 4;
/// The largest frame that a client may send before it knows our SETTINGS.
const MAX_FRAME_BYTES: usize = 16 * 1024;
/// What clients send first fits in here.
const BUFFER_BYTES: usize = 256;
/// How long a client that speaks the wrong protocol may take to close the connection.
const CLIENT_CLOSES: Duration = Duration::from_secs(1);
/// The first byte of TLS: a record of the handshake.
const TLS: u8 = 22;
/// The type of a GOAWAY frame, and its reason (RFC 9113, 6.8 and 7).
const GOAWAY: u8 = 7;
const INADEQUATE_SECURITY: u32 = 12;

/// What the client speaks, and the server does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misdirected {
    /// TLS, to a port without it.
    Tls,
    /// No TLS, to a port with it.
    Plaintext,
}

impl Misdirected {
    fn text(self) -> &'static str {
        match self {
            Self::Tls => "this port does not speak TLS",
            Self::Plaintext => "this port speaks TLS",
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client speaks the wrong protocol.
    Misdirected(Misdirected),
    /// Anything else.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The socket after its handshake, from the first byte of HTTP/2 on.
type Stream = Rewound<Either<TcpStream, TlsStream<TcpStream>>>;

/// Completes the handshake: the stream, and the client's certificate if it has shown one.
///
/// # Errors
/// The client speaks another protocol, or has closed the connection.
pub(super) async fn complete(
    mut stream: TcpStream,
    tls: Option<&TlsAcceptor>,
) -> Result<(Stream, Option<Certificate>), Failure> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    match (tls, first == [TLS]) {
        (None, false) => Ok((read(Either::Left(stream)).await?, None)),
        (Some(tls), true) => {
            let stream = tls.accept(stream).await?;
            let shown = stream.get_ref().1.peer_certificates();
            let certificate = shown.and_then(|chain| chain.first());
            let certificate = certificate.map(|it| Certificate::parse(it)).transpose();
            let certificate = certificate.map_err(io::Error::other)?;
            Ok((read(Either::Right(stream)).await?, certificate))
        }
        (tls, _) => {
            let misdirected = match tls {
                Some(_) => Misdirected::Plaintext,
                None => Misdirected::Tls,
            };
            // Our own clients show the text; others say that this is not what they speak.
            stream.write_all(&goaway(misdirected.text())).await?;
            stream.shutdown().await?;
            // Closing with bytes unread would reset the connection, and with it what was written.
            // However the client ends it.
            let _ = timeout(CLIENT_CLOSES, copy(&mut stream, &mut sink())).await;
            Err(Failure::Misdirected(misdirected))
        }
    }
}

/// A GOAWAY with this text. There are no SETTINGS before it: after those clients take the
/// connection for a good one, and make the next without a pause.
fn goaway(text: &str) -> Vec<u8> {
    let len = u8::try_from(8 + text.len()).unwrap_or(8);
    let header = [0, 0, len, GOAWAY, 0, 0, 0, 0, 0];
    let error = INADEQUATE_SECURITY.to_be_bytes();
    let parts: [&[u8]; 4] = [&header, &[0; 4], &error, text.as_bytes()];
    parts.concat()
}

/// Reads the preface and the SETTINGS.
async fn read<S>(mut stream: S) -> io::Result<Rewound<S>>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = Vec::with_capacity(BUFFER_BYTES);
    while !is_complete(&bytes)? {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Rewound {
        bytes,
        read: 0,
        stream,
    })
}

/// A stream of which some bytes were read before, and are read again.
pub(super) struct Rewound<S> {
    bytes: Vec<u8>,
    /// How many of them have been read again.
    read: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = self.bytes.get(self.read..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let len = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..len]);
        self.read += len;
        if self.read == self.bytes.len() {
            self.bytes = Vec::new();
            self.read = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Whether the bytes contain the whole preface and the whole SETTINGS frame.
fn is_complete(bytes: &[u8]) -> io::Result<bool> {
    let begins = bytes.iter().zip(PREFACE).all(|(byte, known)| byte == known);
    if !begins {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let frame = bytes.get(PREFACE.len()..).unwrap_or_default();
    let Some(([len @ .., kind, _flags, _, _, _, _], payload)) = frame.split_first_chunk::<9>()
    else {
        return Ok(false);
    };
    let len = len
        .iter()
        .fold(0, |len, byte| len << 8 | usize::from(*byte));
    if *kind != SETTINGS || len > MAX_FRAME_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(payload.len() >= len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_complete_with_its_settings() {
        let mut bytes = PREFACE.to_vec();
        bytes.extend([0, 0, 6, SETTINGS, 0, 0, 0, 0, 0]);
        bytes.extend([0, 2, 0, 0, 0, 0]);
        for len in 0..bytes.len() {
            assert!(!is_complete(&bytes[..len]).expect("valid so far"), "{len}");
        }
        assert!(is_complete(&bytes).expect("valid"));
        bytes.extend(b"more");
        assert!(is_complete(&bytes).expect("valid"));
    }

    #[test]
    fn another_protocol_is_refused_as_soon_as_it_shows() {
        let headers_first = [PREFACE, &[0, 0, 6, 1, 0, 0, 0, 0, 1]].concat();
        let too_large = [PREFACE, &[1, 0, 0, SETTINGS, 0, 0, 0, 0, 0]].concat();
        for bytes in [&b"G"[..], b"PRI * HTTP/1", &headers_first, &too_large] {
            assert!(is_complete(bytes).is_err(), "{bytes:?}");
        }
    }
}
