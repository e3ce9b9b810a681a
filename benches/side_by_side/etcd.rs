//! etcd, and the part of its API that is measured, written from its documentation.

use std::{process::Command, time::Duration};

use http::uri::PathAndQuery;
use prost::{Message, bytes::Bytes};
use tonic::{Request, Status, client::Grpc};

use crate::load::Channel;
use tonic_prost::ProstCodec;

use crate::{
    Result, calls,
    guardian::{As, Guarded, directory},
};

/// The prefix of all keys.
const PREFIX: &[u8] = b"calls/";
/// The first key behind the prefix.
pub(crate) const PREFIX_END: &[u8] = b"calls0";
/// The most writes in a transaction, by etcd's default.
pub(crate) const MAX_OPERATIONS: usize = 128;

/// The key of a call.
pub(crate) fn key(uid: &str) -> Bytes {
    [PREFIX, uid.as_bytes()].concat().into()
}

/// A server that ends, with its data, when this is dropped.
pub(crate) struct Etcd {
    _server: Guarded,
    /// Where it listens.
    pub(crate) endpoint: String,
}

impl Etcd {
    /// Starts a server with default settings, except for the quota of its size.
    pub(crate) fn start() -> Result<Self> {
        let dir = directory(As::Us)?;
        let endpoint = format!("http://127.0.0.1:{}", free_port()?);
        let peers = format!("http://127.0.0.1:{}", free_port()?);
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(dir.join("data"));
        for (flag, value) in [
            ("--listen-client-urls", endpoint.as_str()),
            ("--advertise-client-urls", &endpoint),
            ("--listen-peer-urls", &peers),
            ("--initial-advertise-peer-urls", &peers),
            ("--initial-cluster", &format!("default={peers}")),
            ("--quota-backend-bytes", "8589934592"),
            ("--logger", "zap"),
            ("--log-level", "error"),
        ] {
            command.args([flag, value]);
        }
        let server = Guarded::start(&command, As::Us, "TERM", &dir)?;
        let address = endpoint.trim_start_matches("http://");
        for _ in 0..200 {
            if std::net::TcpStream::connect(address).is_ok() {
                // It listens a moment before it has elected itself.
                std::thread::sleep(Duration::from_secs(1));
                return Ok(Self {
                    _server: server,
                    endpoint,
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("etcd does not start; is it installed?".into())
    }
}

/// A free port of this machine.
fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

/// The version that is installed.
pub(crate) fn version() -> Result<String> {
    let text = crate::postgres::run(Command::new("etcd").arg("--version"))?;
    let line = text.lines().next().unwrap_or_default();
    Ok(line.replace("etcd Version: ", ""))
}

/// A client of etcd.
#[derive(Clone)]
pub(crate) struct Client(Grpc<Channel>);

impl Client {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(Grpc::new(channel))
    }

    async fn unary<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.0
            .ready()
            .await
            .map_err(|e| Status::unknown(e.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        let answer = self.0.unary(Request::new(request), path, codec).await?;
        Ok(answer.into_inner())
    }

    /// Writes one call.
    pub(crate) async fn put(&mut self, uid: &str, value: Bytes) -> Result<(), Status> {
        let put = Put {
            key: key(uid),
            value,
        };
        let _: Empty = self.unary("/etcdserverpb.KV/Put", put).await?;
        Ok(())
    }

    /// Writes calls in one transaction.
    pub(crate) async fn put_all(
        &mut self,
        calls: impl Iterator<Item = (String, Bytes)>,
    ) -> Result<(), Status> {
        let operations = calls.map(|(uid, value)| Operation {
            put: Some(Put {
                key: key(&uid),
                value,
            }),
        });
        let transaction = Transaction {
            success: operations.collect(),
        };
        let _: Empty = self.unary("/etcdserverpb.KV/Txn", transaction).await?;
        Ok(())
    }

    /// Looks up one call, linearizably.
    pub(crate) async fn get(&mut self, uid: &str) -> Result<Bytes, Status> {
        let range = Range { key: key(uid) };
        let found: Found = self.unary("/etcdserverpb.KV/Range", range).await?;
        let first = found.kvs.into_iter().next();
        Ok(first.ok_or_else(|| Status::not_found("no such key"))?.value)
    }
}

/// Writes the seeded calls 1 to `count`.
pub(crate) async fn seed(channel: Channel, count: u64) -> Result<(), Status> {
    let mut client = Client::new(channel);
    let numbers: Vec<u64> = (1..=count).collect();
    for chunk in numbers.chunks(MAX_OPERATIONS) {
        let calls = chunk.iter().map(|n| (calls::uid(*n), calls::value()));
        client.put_all(calls).await?;
    }
    Ok(())
}

/// `WatchRequest` for every call.
pub(crate) fn watch_request() -> Bytes {
    let create = WatchCreate {
        key: Bytes::from_static(PREFIX),
        range_end: Bytes::from_static(PREFIX_END),
    };
    let request = Watch {
        create: Some(create),
    };
    request.encode_to_vec().into()
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, optional, tag = "2")]
    put: Option<Put>,
}

#[derive(Clone, PartialEq, Message)]
struct Transaction {
    #[prost(message, repeated, tag = "2")]
    success: Vec<Operation>,
}

#[derive(Clone, PartialEq, Message)]
struct Range {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Found {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct WatchCreate {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Watch {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreate>,
}
