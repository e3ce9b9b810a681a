//! A socket that gathers small writes, and flushes one turn of the scheduler
//! late, so that answers which become ready together leave in one system call.
//!
//! A batch of the store's wakes many streams at once. Without this the runtime
//! runs the connection right after each of them, and HTTP/2 writes every larger
//! frame by itself: each answer would be a packet of its own.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

/// What is gathered at most; larger writes pass through.
const BUFFER_BYTES: usize = 32 * 1024;

/// See the module. Reads pass through.
#[derive(Debug)]
pub struct WriteCoalescer<S> {
    socket: BufWriter<S>,
    /// Whether the flush that is tried has had its turn.
    waited: bool,
}

impl<S: AsyncWrite> WriteCoalescer<S> {
    /// A socket that gathers what is written to `socket`.
    pub fn new(socket: S) -> Self {
        Self {
            socket: BufWriter::with_capacity(BUFFER_BYTES, socket),
            waited: false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WriteCoalescer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

/// Writes are not vectored: HTTP/2 then copies small payloads behind their
/// frame's head instead of writing each by itself.
impl<S: AsyncWrite + Unpin> AsyncWrite for WriteCoalescer<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.buffer().is_empty() {
            return Pin::new(&mut self.socket).poll_flush(context);
        }
        if !self.waited {
            // The task goes to the end of the queue.
            self.waited = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(context));
        self.waited = false;
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
