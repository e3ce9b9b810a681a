//! A request's body, bounded in time and in bytes: how long it may take, and how long it, or the
//! stream of an import, may be silent.
//!
//! A response that is sent before its request has arrived costs a reset of the stream, and
//! HTTP/2 ends a connection with too many of them. So what is refused at once is read to its
//! end first, as far as it comes soon.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tonic::{Status, body::Body};

use super::Place;
use crate::api::error::Error;

/// How long a request may send nothing before its end.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// How long all of a request may take to arrive.
const WHOLE_TIME: Duration = Duration::from_secs(30);
/// How long an import may send nothing while it is waited for.
const STREAM_IDLE_TIME: Duration = Duration::from_secs(60);

/// How much of a refused request is read, and for how long.
const REST_BYTES: usize = 64 * 1024;
const REST_TIME: Duration = Duration::from_secs(1);

/// Reads a refused request to its end, and drops it.
pub(in crate::api) async fn read_rest(mut body: Body) {
    if body.is_end_stream() {
        return;
    }
    let mut bytes = 0;
    let read = poll_fn(|context| {
        loop {
            match ready!(Pin::new(&mut body).poll_frame(context)) {
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => return Poll::Ready(()),
            }
            if bytes > REST_BYTES {
                return Poll::Ready(());
            }
        }
    });
    // One that comes later costs a reset.
    let _ = timeout(REST_TIME, read).await;
}

/// See the module.
pub(in crate::api) struct RequestBody {
    body: Body,
    /// The request's place, which counts its bytes; `None` for a stream, whose handler bounds
    /// what it holds, and for other services, whose messages are small.
    place: Option<Place>,
    is_stream: bool,
    /// By when all of it must be here, since it was waited for: most requests arrive with their
    /// headers. `None` for a stream.
    whole_by: Option<Instant>,
    /// Ends the wait for the next bytes, while they are waited for.
    wait: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) fn new(body: Body, place: Option<Place>, is_stream: bool) -> Self {
        Self {
            body,
            place,
            is_stream,
            whole_by: None,
            wait: None,
        }
    }

    fn give_up_at(&mut self) -> Instant {
        let now = Instant::now();
        if self.is_stream {
            return now + STREAM_IDLE_TIME;
        }
        let whole_by = *self.whole_by.get_or_insert(now + WHOLE_TIME);
        whole_by.min(now + IDLE_TIME)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.wait = None;
            if let (Some(place), Some(Ok(frame))) = (&self.place, &frame)
                && let Some(data) = frame.data_ref()
                && !place.add_request_bytes(data.len())
            {
                return Poll::Ready(Some(Err(Error::Overloaded.into())));
            }
            return Poll::Ready(frame);
        }
        if self.wait.is_none() {
            let give_up_at = self.give_up_at();
            self.wait = Some(Box::pin(sleep_until(give_up_at)));
        }
        match self.wait.as_mut().map(|wait| wait.as_mut().poll(context)) {
            Some(Poll::Ready(())) => Poll::Ready(Some(Err(Error::RequestStalled.into()))),
            _ => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
