//! A response's body, in frames of a bounded size. Whether its client has taken nothing for too
//! long is decided by `responses`; then the body ends here, with WATCHER_TOO_SLOW.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tonic::{Status, body::Body};

use super::{
    Place,
    budget::Claim,
    responses::{Progress, Responses, Shared},
};
use crate::api::error::Error;

/// The parts in which the connection gets what is larger. HTTP/2 takes a part as soon as the client
/// has room for a single byte, and the connection keeps the one after it meanwhile. So the last two
/// of a response that is given up, and all of a small one, are no longer counted here although no
/// client may ever take them.
const PART_BYTES: usize = 8 * 1024;

/// See the module.
pub(super) struct ResponseBody {
    shared: Arc<Shared>,
    responses: Responses,
    key: usize,
}

/// What a response holds until it has been written or given up.
pub(super) struct Unwritten {
    body: Body,
    /// Encoded, and not given to the connection yet.
    rest: Bytes,
    bytes: Claim,
    /// Of a unary response.
    _place: Option<Place>,
}

impl ResponseBody {
    pub(super) fn new(
        body: Body,
        place: Option<Place>,
        bytes: Claim,
        responses: &Responses,
    ) -> Self {
        let is_stream = place.is_none();
        let shared = Arc::new(Shared::new(
            Unwritten {
                body,
                rest: Bytes::new(),
                bytes,
                _place: place,
            },
            is_stream,
        ));
        Self {
            key: responses.insert(Arc::clone(&shared)),
            responses: responses.clone(),
            shared,
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.responses.remove(self.key);
    }
}

impl Unwritten {
    /// The next frame; `None` at the end.
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.next_of_rest())));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return Poll::Pending;
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        match frame.into_data() {
            Ok(data) if data.len() > PART_BYTES => {
                if !self.bytes.add(data.len()) {
                    return Poll::Ready(Some(Ok(trailers(Error::Overloaded))));
                }
                self.rest = data;
                Poll::Ready(Some(Ok(self.next_of_rest())))
            }
            Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Err(frame) => Poll::Ready(Some(Ok(frame))),
        }
    }

    /// A copy: a part of the whole would keep all of it in memory.
    fn next_of_rest(&mut self) -> Frame<Bytes> {
        let len = self.rest.len().min(PART_BYTES);
        let part = Bytes::copy_from_slice(&self.rest.split_to(len));
        if self.rest.is_empty() {
            self.rest = Bytes::new();
            self.bytes.clear();
        }
        Frame::data(part)
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut progress = self.shared.progress();
        let frame = match &mut *progress {
            Progress::Unwritten { response, idle } => {
                let frame = response.poll_frame(context);
                *idle = frame.is_ready().then_some(0);
                frame
            }
            Progress::GivenUp => {
                *progress = Progress::Written;
                return Poll::Ready(Some(Ok(trailers(Error::WatcherTooSlow))));
            }
            Progress::Written => return Poll::Ready(None),
        };
        let is_last = match &frame {
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
            Poll::Ready(_) => true,
            Poll::Pending => false,
        };
        let ended = is_last.then(|| mem::replace(&mut *progress, Progress::Written));
        drop(progress);
        // Outside the lock: what a stream holds may take a while to end.
        drop(ended);
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &*self.shared.progress() {
            Progress::Unwritten { response, .. } => {
                response.rest.is_empty() && response.body.is_end_stream()
            }
            Progress::GivenUp => false,
            Progress::Written => true,
        }
    }
}

/// The end of a response whose headers have been sent.
fn trailers(error: Error) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    // What cannot be a header is left out by our own texts.
    let _ = Status::from(error).add_header(&mut trailers);
    Frame::trailers(trailers)
}
