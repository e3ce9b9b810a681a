//! HTTP/2 frames by hand, for clients that no library would let us be: many frames in one
//! write, and every frame of the server as it came.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::raw::frame;

/// The frame types of RFC 9113 that are used here.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const GOAWAY: u8 = 7;
const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const INITIAL_WINDOW_SIZE: u16 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;

/// A frame that was received.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    /// For the message of a test that fails.
    #[expect(dead_code, reason = "only shown")]
    pub(crate) payload: Vec<u8>,
}

/// The two directions of a new connection, on which the preface and SETTINGS were sent.
pub(crate) async fn connect(endpoint: &str) -> (OwnedWriteHalf, Frames) {
    connect_with_window(endpoint, 65_535).await
}

/// The same with room for so many bytes of each response.
pub(crate) async fn connect_with_window(endpoint: &str, window: u32) -> (OwnedWriteHalf, Frames) {
    let address = endpoint.strip_prefix("http://").expect("plaintext");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let setting = [
        &INITIAL_WINDOW_SIZE.to_be_bytes()[..],
        &window.to_be_bytes(),
    ]
    .concat();
    put(&mut start, SETTINGS, 0, 0, &setting);
    // The server may send more than will ever come.
    put(
        &mut start,
        WINDOW_UPDATE,
        0,
        0,
        &(1_u32 << 30).to_be_bytes(),
    );
    stream.write_all(&start).await.expect("it takes them");
    let (read, write) = stream.into_split();
    (write, Frames(read))
}

/// The frames that the server sends.
pub(crate) struct Frames(OwnedReadHalf);

impl Frames {
    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }
}

/// Appends a request with one message.
pub(crate) fn put_request(bytes: &mut Vec<u8>, stream: u32, method: &str, message: &[u8]) {
    put_beginning(bytes, stream, method);
    put_end(bytes, stream, message);
}

/// Appends the headers of such a request.
pub(crate) fn put_beginning(bytes: &mut Vec<u8>, stream: u32, method: &str) {
    // POST and http are entries of HPACK's static table; the rest is literal.
    let mut headers = vec![0x83, 0x86];
    let path = format!("/voicecall.v1.VoiceCallService/{method}");
    for (name, value) in [
        (":path", path.as_str()),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).expect("short"));
            headers.extend(text.as_bytes());
        }
    }
    put(bytes, HEADERS, END_HEADERS, stream, &headers);
}

/// Appends its message.
pub(crate) fn put_end(bytes: &mut Vec<u8>, stream: u32, message: &[u8]) {
    put(bytes, DATA, END_STREAM, stream, &frame(message));
}

/// Appends a PING, which is answered when all before it has been read.
pub(crate) fn put_ping(bytes: &mut Vec<u8>) {
    put(bytes, PING, 0, 0, &[0; 8]);
}

/// Appends the fewest headers that begin a request: POST, http and "/" are entries of HPACK's
/// static table.
pub(crate) fn put_headers(bytes: &mut Vec<u8>, stream: u32) {
    put(bytes, HEADERS, END_HEADERS, stream, &[0x83, 0x86, 0x84]);
}

/// Appends the cancellation of a request.
pub(crate) fn put_reset(bytes: &mut Vec<u8>, stream: u32) {
    put(bytes, RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
}

fn put(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
    bytes.extend(&len[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}
