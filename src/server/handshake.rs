//! The beginning of an HTTP/2 connection: the client's preface and its SETTINGS.
//!
//! They are read here, because HTTP/2 itself would wait for them without a bound, and because
//! nothing has to be said to a client that has not sent them.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The type of a SETTINGS frame.
const SETTINGS: u8 = 4;
/// The largest frame that a client may send before it knows our SETTINGS.
const MAX_FRAME_BYTES: usize = 16 * 1024;
/// What clients send first fits in here.
const BUFFER_BYTES: usize = 256;

/// Reads the preface and the SETTINGS, and returns the socket from its first byte on.
///
/// # Errors
/// The client speaks another protocol, or has closed the connection.
pub(super) async fn read(
    mut stream: TcpStream,
) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    let mut bytes = Vec::with_capacity(BUFFER_BYTES);
    while !is_complete(&bytes)? {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let (rest, writer) = stream.into_split();
    let reader = io::Cursor::new(bytes).chain(rest);
    Ok(tokio::io::join(reader, writer))
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
