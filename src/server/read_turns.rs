//! How much of a client's input is read before its requests are taken up and other connections
//! have their turn.
//!
//! HTTP/2 reads all that has arrived before it takes up the first request, and the requests
//! among it that have been cancelled already count against a limit of their own, which ends
//! the connection. Without this, a client that cancels many requests at once loses its
//! connection whenever the server is a little behind, and a client that floods the server has
//! a megabyte of frames handled in one go, while all the others on its thread wait. A flood of
//! frames that carry nothing is read at a rate (`control_frames`).

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::control_frames::ControlFrames;

/// A turn ends with the read that reaches this: HTTP/2's default of the largest frame.
const TURN_BYTES: usize = 16 * 1024;
/// A turn that brings more requests than this makes the next one half as long, down to the
/// least: 16 KiB may hold six hundred requests of a flood, and those of others on the thread
/// would wait for all of them, turn after turn.
const MAX_BEGUN: usize = 100;
const MIN_TURN_BYTES: usize = 1024;

/// The turns of one connection.
#[derive(Debug, Default)]
pub(super) struct ReadTurns {
    /// The bytes that may still be read in this turn.
    left: Arc<AtomicUsize>,
    /// The requests that have begun in this turn.
    begun: Arc<AtomicUsize>,
    /// The bytes that have been read or written so far.
    moved: Arc<AtomicUsize>,
    /// Whether the socket took nothing of the last write.
    is_full: Arc<AtomicBool>,
}

impl ReadTurns {
    /// Limits the reads of `socket`.
    pub(super) fn limit<S>(&self, socket: S) -> LimitedReads<S> {
        LimitedReads {
            socket,
            left: Arc::clone(&self.left),
            moved: Arc::clone(&self.moved),
            is_full: Arc::clone(&self.is_full),
            control_frames: ControlFrames::new(),
            pause: None,
        }
    }

    /// Counts the requests that begin.
    pub(super) fn begun(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.begun)
    }

    /// The bytes that the socket has read or written so far.
    pub(super) fn moved(&self) -> usize {
        self.moved.load(Ordering::Relaxed)
    }

    /// Whether there is something to write that the socket does not take.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Drives what reads the socket. Each time that the scheduler polls it is a turn.
    pub(super) async fn run<F: Future>(&self, reader: F) -> F::Output {
        let mut reader = pin!(reader);
        let mut turn_bytes = TURN_BYTES;
        poll_fn(|context| {
            turn_bytes = next_turn(turn_bytes, self.begun.swap(0, Ordering::Relaxed));
            self.left.store(turn_bytes, Ordering::Relaxed);
            reader.as_mut().poll(context)
        })
        .await
    }
}

/// The length of the next turn, after one of `bytes` in which `begun` requests began.
fn next_turn(bytes: usize, begun: usize) -> usize {
    if begun > MAX_BEGUN {
        (bytes / 2).max(MIN_TURN_BYTES)
    } else {
        (bytes * 2).min(TURN_BYTES)
    }
}

/// A socket that is read in turns. Writes pass through, and are counted.
#[derive(Debug)]
pub(super) struct LimitedReads<S> {
    socket: S,
    left: Arc<AtomicUsize>,
    moved: Arc<AtomicUsize>,
    is_full: Arc<AtomicBool>,
    control_frames: ControlFrames,
    /// Nothing is read until it is over.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedReads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            // The task goes to the end of the scheduler's queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        let until = self
            .control_frames
            .count(&buffer.filled()[before..], Instant::now());
        self.pause = until.map(|until| Box::pin(sleep_until(until)));
        self.left
            .store(left.saturating_sub(read), Ordering::Relaxed);
        self.moved.fetch_add(read, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedReads<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.is_full.store(polled.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(written)) = polled {
            self.moved.fetch_add(written, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_many_requests_become_short_and_long_again() {
        let mut bytes = TURN_BYTES;
        for _ in 0..10 {
            bytes = next_turn(bytes, MAX_BEGUN + 1);
        }
        assert_eq!(bytes, MIN_TURN_BYTES);
        for _ in 0..10 {
            bytes = next_turn(bytes, MAX_BEGUN);
        }
        assert_eq!(bytes, TURN_BYTES);
    }
}
