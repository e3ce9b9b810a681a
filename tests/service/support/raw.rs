//! HTTP/2 by hand: what no well-behaved gRPC client would send, and answers as
//! the server sent them, which a client's own deadline would hide.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tonic::Status;

/// One connection.
pub(crate) struct Raw {
    sender: SendRequest<Full<Bytes>>,
    endpoint: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status, from the headers or the trailers.
    pub(crate) status: Status,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A response that need not be gRPC's.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) http_status: http::StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Raw {
    /// Connects to the server at `endpoint`.
    pub(crate) async fn connect(endpoint: &str) -> Self {
        let address = endpoint.strip_prefix("http://").expect("plaintext");
        let stream = TcpStream::connect(address).await.expect("it listens");
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("it speaks HTTP/2");
        tokio::spawn(connection);
        Self {
            sender,
            endpoint: endpoint.to_owned(),
        }
    }

    /// Posts these bytes to `path` (of our service, unless it begins with a
    /// slash).
    pub(crate) async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let path = match path.strip_prefix('/') {
            Some(path) => path.to_owned(),
            None => format!("voicecall.v1.VoiceCallService/{path}"),
        };
        let mut request = Request::post(format!("{}/{path}", self.endpoint))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("valid");
        self.sender.ready().await.expect("the connection lives");
        let response = self.sender.send_request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the answer ends in order");
        let status = Status::from_header_map(&parts.headers)
            .or_else(|| Status::from_header_map(body.trailers()?))
            .expect("every answer has a status");
        Answer {
            status,
            headers: parts.headers,
            body: body.to_bytes(),
        }
    }

    /// Sends this request, whatever it is, and returns the response's status, headers and
    /// trailers as they come.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Exchange {
        self.sender.ready().await.expect("the connection lives");
        let response = self.sender.send_request(request).await.expect("a response");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the response ends in order");
        Exchange {
            http_status: parts.status,
            headers: parts.headers,
            trailers: body.trailers().cloned(),
        }
    }

    /// The URI of a path on this server.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint)
    }

    /// Sends a message as it should be.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        headers: &[(&str, &str)],
        message: &impl Message,
    ) -> Answer {
        self.post(method, headers, frame(&message.encode_to_vec()))
            .await
    }
}

/// The bytes behind the five of their frame: no compression, and their length.
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).expect("it fits");
    let mut frame = vec![0];
    frame.extend(len.to_be_bytes());
    frame.extend(message);
    frame
}
