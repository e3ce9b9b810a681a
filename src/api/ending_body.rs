//! The end of the streams that are not ours: a health watch, or reflection, lasts for as long
//! as its client likes. When its connection is about to close it ends with a status, like the
//! streams of the call service.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::{sync::WaitForCancellationFutureOwned, task::task_tracker::TaskTrackerToken};
use tonic::{Status, body::Body};

use super::{context::Connection, error::Error};

/// The response, whose stream ends when its connection is about to close, and has this permit
/// until then.
pub(super) fn end_with(
    connection: Option<Arc<Connection>>,
    permit: Option<OwnedSemaphorePermit>,
    response: Response<Body>,
) -> Response<Body> {
    match connection {
        Some(connection) if !response.body().is_end_stream() => response.map(|body| {
            Body::new(EndingBody {
                body,
                ending: Box::pin(connection.ending().clone().cancelled_owned()),
                is_ended: false,
                _stream: connection.stream(),
                _permit: permit,
            })
        }),
        _ => response,
    }
}

struct EndingBody {
    body: Body,
    ending: Pin<Box<WaitForCancellationFutureOwned>>,
    is_ended: bool,
    /// GOAWAY waits for the stream.
    _stream: TaskTrackerToken,
    _permit: Option<OwnedSemaphorePermit>,
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        // What the stream has to say comes first: at shutdown health watches say NOT_SERVING,
        // which is reported before any connection ends.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(self.ending.as_mut().poll(context));
        self.is_ended = true;
        let mut trailers = HeaderMap::new();
        let status = Status::from(Error::Draining);
        Poll::Ready(Some(match status.add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
