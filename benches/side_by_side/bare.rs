//! Bare tonic: what generated code does, for services without generated messages, and a codec
//! that leaves messages as bytes.

use std::{
    convert::Infallible,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use prost::bytes::{Buf, BufMut, Bytes};
use tonic::{
    Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, UnaryService},
};
use tonic_prost::ProstCodec;

use crate::Result;

/// The result of routing a request.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A service, given as a function from a method's name to the response.
pub(crate) trait Routes: Clone + Send + Sync + 'static {
    fn route(&self, method: &str, request: Request<Body>) -> Answer;
}

/// Serves the routes under voicecall's name.
#[derive(Clone)]
pub(crate) struct Named<R>(pub(crate) R);

impl<R> NamedService for Named<R> {
    const NAME: &'static str = voicecall::proto::SERVICE_NAME;
}

impl<R: Routes> tower::Service<Request<Body>> for Named<R> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().map(str::to_owned);
        let answer = self.0.route(&method.unwrap_or_default(), request);
        Box::pin(async { Ok(answer.await) })
    }
}

/// Handles a unary request by a function.
pub(crate) fn unary<Q, A, F, W>(request: Request<Body>, function: F) -> Answer
where
    Q: prost::Message + Default + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
    F: FnMut(Q) -> W + Send + 'static,
    W: Future<Output = Result<A, Status>> + Send + 'static,
{
    Box::pin(async move {
        let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
        grpc.unary(Unary(function, PhantomData), request).await
    })
}

struct Unary<F, Q>(F, PhantomData<fn(Q)>);

impl<Q, A, F, W> UnaryService<Q> for Unary<F, Q>
where
    F: FnMut(Q) -> W,
    W: Future<Output = Result<A, Status>> + Send + 'static,
{
    type Response = A;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<A>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        Box::pin(async { answer.await.map(tonic::Response::new) })
    }
}

/// The response to an unknown method.
pub(crate) fn unimplemented() -> Answer {
    Box::pin(async { Status::unimplemented("not measured").into_http() })
}

/// Serves on a free port until the process is killed; writes the address to standard error.
pub(crate) async fn serve<R: Routes>(routes: R) -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tonic::transport::Server::builder().add_service(Named(routes));
    Ok(server.serve_with_incoming(incoming).await?)
}

/// The codec that leaves messages as bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
