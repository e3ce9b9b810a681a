//! A socket that combines small writes, and flushes one turn of the scheduler late, so that
//! responses which become ready together are sent by one system call.
//!
//! A batch of the store wakes many streams at once. Without this, the runtime runs the
//! connection right after each of them, and HTTP/2 writes every larger frame by itself: each
//! response would be a packet of its own.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

/// The most bytes that are combined; larger writes pass through.
const BUFFER_BYTES: usize = 32 * 1024;

/// A socket that combines small writes; see the module. Reads pass through.
#[derive(Debug)]
pub struct WriteCoalescer<S> {
    socket: BufWriter<S>,
    /// Whether the pending flush has yielded to other tasks.
    has_yielded: bool,
}

impl<S: AsyncWrite> WriteCoalescer<S> {
    /// Combines the small writes to `socket`.
    pub fn new(socket: S) -> Self {
        Self {
            socket: BufWriter::with_capacity(BUFFER_BYTES, socket),
            has_yielded: false,
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

/// Writes are not vectored: then HTTP/2 copies small payloads behind the header of their
/// frame, instead of writing each by itself.
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
        if !self.has_yielded {
            // The task goes to the end of the scheduler's queue.
            self.has_yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(context));
        self.has_yielded = false;
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
