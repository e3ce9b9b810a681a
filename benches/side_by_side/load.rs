//! The requests of each kind of load, to servers with voicecall's API and to etcd.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::TokioIo;
use prost::{
    Message,
    bytes::{BufMut, Bytes, BytesMut},
};
use tokio::net::TcpStream;
use tonic::{Status, service::interceptor::InterceptedService, transport::Endpoint};
use voicecall::{
    proto::{
        self, VoiceCallStatsGroup, VoiceCallStatus,
        voice_call_service_client::VoiceCallServiceClient as VoiceCalls,
    },
    server::WriteCoalescer,
};

use crate::{
    Result, calls, etcd,
    lists::{self, List},
    secured::Credentials,
};

/// The API of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// voicecall's: the service, the floor and the baseline.
    Voicecall,
    /// etcd's.
    Etcd,
}

/// The kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Load {
    /// A new call each.
    Create,
    /// One of the seeded calls.
    Get,
    /// Another status for one of the seeded calls.
    Update,
    /// 70 % look-ups, 15 % lists of 50, 15 % writes.
    Mixed,
    /// A page of 100.
    ListByTime,
    /// A page of 100 of one member of staff.
    ListByStaff,
    /// A page of 100 of one client.
    ListByClient,
    /// A page of 100 with one number on either side.
    ListByNumber,
    /// A page of 100 missed calls that are not handled.
    ListToHandle,
    /// A page of the 100 calls that were updated last.
    ListByUpdate,
    /// All calls counted, by status and day in Europe/Berlin.
    Stats,
}

/// The number of calls whose status is changed.
const UPDATED: u64 = 100_000;

/// The statuses that updates go through.
const STATUSES: [VoiceCallStatus; 3] = [
    VoiceCallStatus::AnsweredByStaff,
    VoiceCallStatus::Missed,
    VoiceCallStatus::AnsweredByVonage,
];

/// The state that all requests of a run share.
pub(crate) struct Workload {
    load: Load,
    /// Seeded calls, to look up.
    calls: u64,
    /// The value that is written to etcd.
    value: Bytes,
    /// The status of each call that is updated, so that each update changes it.
    statuses: Vec<AtomicU8>,
    /// The pages to request, in turn.
    lists: Vec<proto::ListVoiceCallsRequest>,
}

/// A request to voicecall.
pub(crate) enum Ask {
    Create(proto::CreateVoiceCallRequest),
    Get(proto::GetVoiceCallRequest),
    Update(proto::UpdateVoiceCallRequest),
    List(proto::ListVoiceCallsRequest),
    Stats(proto::GetVoiceCallStatsRequest),
}

/// A client, of whichever API.
#[derive(Clone)]
pub(crate) enum Client {
    Voicecall(VoiceCalls<Channel>),
    Etcd(etcd::Client),
}

pub(crate) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Combines writes: a driver that writes each request separately costs more than what it
/// measures.
pub(crate) async fn socket(uri: &http::Uri) -> std::io::Result<WriteCoalescer<TcpStream>> {
    connect(uri).await.map(WriteCoalescer::new)
}

async fn connect(uri: &http::Uri) -> std::io::Result<TcpStream> {
    let address = uri.authority().map(ToString::to_string).unwrap_or_default();
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// A connection, with the credentials of its requests.
pub(crate) type Channel = InterceptedService<tonic::transport::Channel, Credentials>;

/// A connection.
pub(crate) async fn channel(endpoint: &str) -> Result<Channel> {
    let endpoint: http::Uri = endpoint.parse()?;
    let credentials = Credentials::of(&endpoint)?;
    let secure = credentials.clone();
    let connect = tower::service_fn(move |uri: http::Uri| {
        let secure = secure.clone();
        async move {
            let socket = secure.secure(connect(&uri).await?).await?;
            std::io::Result::Ok(TokioIo::new(WriteCoalescer::new(socket)))
        }
    });
    let endpoint = Endpoint::from(endpoint)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let channel = endpoint.connect_with_connector(connect).await?;
    Ok(InterceptedService::new(channel, credentials))
}

impl Client {
    pub(crate) fn new(target: Target, channel: Channel) -> Self {
        match target {
            Target::Voicecall => Self::Voicecall(VoiceCalls::new(channel)),
            Target::Etcd => Self::Etcd(etcd::Client::new(channel)),
        }
    }

    /// Sends one request, and waits for the response.
    pub(crate) async fn one(&mut self, work: &Workload) -> Result<(), Status> {
        match self {
            Self::Voicecall(client) => work.next().send(client).await,
            Self::Etcd(client) => match work.load {
                Load::Create => {
                    let uid = calls::request_id();
                    client.put(&uid, work.value.clone()).await
                }
                Load::Get => client.get(&calls::uid(work.any())).await.map(drop),
                _ => Err(Status::unimplemented("etcd has no such thing")),
            },
        }
    }
}

impl Workload {
    /// Prepares a load on `calls` seeded calls.
    pub(crate) async fn prepare(
        load: Load,
        last_page: bool,
        calls: u64,
        client: &Client,
    ) -> Result<Arc<Self>> {
        let mut work = Self {
            load,
            calls,
            value: calls::value(),
            statuses: Vec::new(),
            lists: Vec::new(),
        };
        if let Client::Voicecall(client) = client {
            let mut client = client.clone();
            if load == Load::Update {
                work.statuses = statuses(&mut client, calls.min(UPDATED)).await?;
            }
            if let Some(list) = load.list() {
                work.lists = lists::prepare(&mut client, list, last_page, calls).await?;
            }
        }
        Ok(Arc::new(work))
    }

    fn any(&self) -> u64 {
        rand::random_range(1..=self.calls)
    }

    /// The next request to voicecall.
    pub(crate) fn next(&self) -> Ask {
        match self.load {
            Load::Create => create(),
            Load::Get => self.get(),
            Load::Update => self.update_status(),
            Load::Stats => {
                let groups = [VoiceCallStatsGroup::Status, VoiceCallStatsGroup::Day];
                Ask::Stats(proto::GetVoiceCallStatsRequest {
                    group_by: groups.map(Into::into).to_vec(),
                    time_zone: "Europe/Berlin".into(),
                    ..Default::default()
                })
            }
            Load::Mixed => match rand::random_range(0..200) {
                0..140 => self.get(),
                140..170 => Ask::List(lists::of_staff(calls::staff(self.any()), 50)),
                170..185 => create(),
                _ => self.update_duration(),
            },
            _ => Ask::List(self.lists[rand::random_range(0..self.lists.len())].clone()),
        }
    }

    fn get(&self) -> Ask {
        Ask::Get(proto::GetVoiceCallRequest {
            uid: calls::uid(self.any()),
            ..Default::default()
        })
    }

    /// Gives the call another status than it has, because an update that changes nothing would
    /// cost less.
    fn update_status(&self) -> Ask {
        let index = rand::random_range(0..self.statuses.len());
        let status = self.statuses[index].fetch_add(1, Ordering::Relaxed);
        update(proto::VoiceCall {
            uid: calls::uid(index as u64 + 1),
            status: STATUSES[usize::from(status + 1) % STATUSES.len()].into(),
            ..Default::default()
        })
    }

    fn update_duration(&self) -> Ask {
        update(proto::VoiceCall {
            uid: calls::uid(self.any()),
            duration: Some(rand::random_range(0..1_000_000)),
            ..Default::default()
        })
    }
}

fn create() -> Ask {
    Ask::Create(proto::CreateVoiceCallRequest {
        voice_call: Some(calls::new()),
        request_id: calls::request_id(),
        ..Default::default()
    })
}

fn update(call: proto::VoiceCall) -> Ask {
    Ask::Update(proto::UpdateVoiceCallRequest {
        voice_call: Some(call),
        request_id: calls::request_id(),
        ..Default::default()
    })
}

impl Ask {
    /// Waits for the response.
    async fn send(self, client: &mut VoiceCalls<Channel>) -> Result<(), Status> {
        match self {
            Self::Create(request) => client.create_voice_call(request).await.map(drop),
            Self::Get(request) => client.get_voice_call(request).await.map(drop),
            Self::Update(request) => client.update_voice_call(request).await.map(drop),
            Self::List(request) => client.list_voice_calls(request).await.map(drop),
            Self::Stats(request) => client.get_voice_call_stats(request).await.map(drop),
        }
    }

    /// The method, and the message with its gRPC prefix.
    pub(crate) fn encode(&self) -> (&'static str, Bytes) {
        match self {
            Self::Create(request) => ("CreateVoiceCall", framed(request)),
            Self::Get(request) => ("GetVoiceCall", framed(request)),
            Self::Update(request) => ("UpdateVoiceCall", framed(request)),
            Self::List(request) => ("ListVoiceCalls", framed(request)),
            Self::Stats(request) => ("GetVoiceCallStats", framed(request)),
        }
    }
}

/// The message behind its gRPC prefix: the flag for no compression, and the length.
fn framed(message: &impl Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(5 + encoded.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
    framed.put_slice(&encoded);
    framed.freeze()
}

impl Load {
    fn list(self) -> Option<List> {
        Some(match self {
            Self::ListByTime => List::ByTime,
            Self::ListByStaff => List::ByStaff,
            Self::ListByClient => List::ByClient,
            Self::ListByNumber => List::ByNumber,
            Self::ListToHandle => List::ToHandle,
            Self::ListByUpdate => List::ByUpdate,
            Self::Create | Self::Get | Self::Update | Self::Mixed | Self::Stats => return None,
        })
    }
}

/// The position in `STATUSES` of each of the seeded calls 1 to `count`.
async fn statuses(client: &mut VoiceCalls<Channel>, count: u64) -> Result<Vec<AtomicU8>> {
    let uids: Vec<String> = (1..=count).map(calls::uid).collect();
    let mut statuses = Vec::new();
    for uids in uids.chunks(1000) {
        let request = proto::BatchGetVoiceCallsRequest {
            uids: uids.to_vec(),
            ..Default::default()
        };
        let found = client.batch_get_voice_calls(request).await?.into_inner();
        statuses.extend(found.voice_calls.iter().map(|call| {
            let place = STATUSES.iter().position(|status| *status == call.status());
            AtomicU8::new(u8::try_from(place.unwrap_or_default()).unwrap_or_default())
        }));
    }
    if statuses.len() == uids.len() {
        Ok(statuses)
    } else {
        Err("not all seeded calls are there".into())
    }
}

/// Waits until a server that has just started responds.
pub(crate) async fn await_answer(endpoint: &str) -> Result<()> {
    let mut client = VoiceCalls::new(channel(endpoint).await?);
    loop {
        let request = proto::GetVoiceCallRequest {
            uid: calls::request_id(),
            ..Default::default()
        };
        match client.get_voice_call(request).await {
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}
