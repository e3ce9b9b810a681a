//! A request's body, bounded in time and in bytes.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};

use super::Place;
use crate::api::error::Error;

/// How long a request may send nothing before its end.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// How long all of a request may take to arrive.
const WHOLE_TIME: Duration = Duration::from_secs(30);
/// How long an import may send nothing while it is waited for.
const STREAM_IDLE_TIME: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct RequestBody {
    body: Body,
    /// The request's place, which counts its bytes; `None` for a stream, whose handler bounds
    /// what it holds.
    place: Option<Place>,
    /// By when all of it must be here, since it was waited for: most requests arrive with their
    /// headers. `None` for a stream.
    whole_by: Option<Instant>,
    /// Ends the wait for the next bytes, while they are waited for.
    wait: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) fn new(body: Body, place: Option<Place>) -> Self {
        Self {
            body,
            place,
            whole_by: None,
            wait: None,
        }
    }

    fn give_up_at(&mut self) -> Instant {
        let now = Instant::now();
        if self.place.is_none() {
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
