//! HTTP/2 frame by frame, from any address of this machine: for clients that leave out what
//! every library does, and for the order in which a server sends what it sends.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::raw::frame;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A SETTINGS frame without settings.
pub(crate) const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// Longer than anything takes that is not broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// A frame that the server sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0 && matches!(self.kind, DATA | HEADERS)
    }
}

/// One connection.
pub(crate) struct Frames {
    stream: TcpStream,
    next_stream: u32,
    /// Whether PINGs are answered, and GOAWAY is with them.
    answers_pings: bool,
}

/// A socket from this address of the machine, without a byte of HTTP/2.
pub(crate) async fn socket(endpoint: &str, from: &str) -> TcpStream {
    let address = endpoint.strip_prefix("http://").expect("plaintext");
    let address: SocketAddr = address.parse().expect("an address");
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = format!("{from}:0").parse().expect("an address");
    socket.bind(from).expect("an address of this machine");
    socket.connect(address).await.expect("it listens")
}

/// Waits until the server has closed the socket.
pub(crate) async fn closed(stream: &mut TcpStream) {
    let mut rest = [0; 1024];
    let closed = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    timeout(PATIENCE, closed).await.expect("it is closed");
}

impl Frames {
    /// Connects and sends the handshake; the server's has been received.
    pub(crate) async fn connect(endpoint: &str, from: &str) -> Self {
        let mut this = Self {
            stream: socket(endpoint, from).await,
            next_stream: 1,
            answers_pings: true,
        };
        this.send(&[PREFACE, &SETTINGS].concat()).await;
        this.next().await.expect("the server's SETTINGS");
        this
    }

    /// One whose socket takes little that is not read, while HTTP/2 may send without a bound.
    pub(crate) async fn connect_slowly(endpoint: &str) -> Self {
        let address = endpoint.strip_prefix("http://").expect("plaintext");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 * 1024).expect("it is small");
        let address = address.parse().expect("an address");
        let mut this = Self {
            stream: socket.connect(address).await.expect("it listens"),
            next_stream: 1,
            answers_pings: true,
        };
        this.send(&[PREFACE, &SETTINGS].concat()).await;
        let window = (1_u32 << 30).to_be_bytes();
        this.send_frame(WINDOW_UPDATE, 0, 0, &window).await;
        this.next().await.expect("the server's SETTINGS");
        this
    }

    /// From now on it acknowledges nothing.
    pub(crate) fn without_pings(mut self) -> Self {
        self.answers_pings = false;
        self
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it is open");
    }

    /// Sends a request, and returns its stream.
    pub(crate) async fn request(&mut self, path: &str, message: &[u8]) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        // HPACK: POST and http from the static table, the rest as literals.
        let mut block = vec![0x83, 0x86];
        let literals: [(&[u8], &str); 4] = [
            (&[0x04], path),
            (&[0x01], "localhost"),
            (&[0x0f, 0x10], "application/grpc"),
            (b"\x00\x02te", "trailers"),
        ];
        for (name, value) in literals {
            block.extend(name);
            block.push(u8::try_from(value.len()).expect("short"));
            block.extend(value.bytes());
        }
        self.send_frame(HEADERS, END_HEADERS, stream, &block).await;
        let message = frame(message);
        self.send_frame(DATA, END_STREAM, stream, &message).await;
        stream
    }

    async fn send_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut bytes = len[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.send(&bytes).await;
    }

    /// The next frame; `None` once the server has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let next = timeout(PATIENCE, self.read()).await;
        next.expect("frames come on time").ok()
    }

    async fn read(&mut self) -> io::Result<Frame> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).await?;
            if kind == PING && flags & ACK == 0 {
                if self.answers_pings {
                    self.send_frame(PING, ACK, 0, &payload).await;
                }
                continue;
            }
            return Ok(Frame {
                kind,
                flags,
                stream: u32::from_be_bytes(stream),
                payload,
            });
        }
    }

    /// Whether a request is answered on this connection.
    pub(crate) async fn is_served(&mut self) -> bool {
        let stream = self.request("/grpc.health.v1.Health/Check", &[]).await;
        while let Some(frame) = self.next().await {
            if frame.stream == stream && frame.ends_stream() {
                return true;
            }
        }
        false
    }

    /// What the server still sends before it closes the connection.
    pub(crate) async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}
