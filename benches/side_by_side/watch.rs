//! The driver of watchers: a separate process with many watchers of all changes, which also
//! writes. It counts events without decoding them, so that the server's work is measured.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use prost::bytes::Bytes;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tonic::{Request, Status, Streaming, client::Grpc};

use crate::load::Channel;
use voicecall::proto;

use crate::{
    Result,
    bare::Raw,
    calls,
    driver::{histogram, micros},
    load::{Client, channel},
    messages::{Protocol, marker, sent_at},
    sample::{Metric, Sample},
};

/// The options of the watch driver.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Watch {
    /// The API of the server.
    #[arg(long)]
    pub(crate) protocol: Protocol,
    /// Where to write.
    #[arg(long)]
    pub(crate) endpoint: String,
    /// Where to watch, if it is another server.
    #[arg(long)]
    pub(crate) watched: Option<String>,
    /// Watchers of everything.
    #[arg(long)]
    pub(crate) watchers: usize,
    /// Seconds to measure, after a quarter of that as warm-up.
    #[arg(long)]
    pub(crate) seconds: f64,
    /// Measure the age of events when they arrive, at this many writes per second. Unset:
    /// measure how many arrive, with as many writes as are delivered.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Write nothing: report when all watches have begun, and watch until standard input ends.
    #[arg(long)]
    pub(crate) hold: bool,
    /// Calls in each write.
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: usize,
    /// Each watcher watches one member of staff, a different one as long as there are enough.
    #[arg(long)]
    pub(crate) of_staff: bool,
    /// One more watcher, that does not read before all is written.
    #[arg(long)]
    pub(crate) stalled: bool,
}

/// The connections that the watchers share, and the watchers on each: a server accepts this many
/// on a connection, and lets others wait.
const CONNECTIONS: usize = 4;
const PER_CONNECTION: usize = 100;
/// Concurrent writes in the fan-out.
const WRITING: usize = 64;
/// Events that may be on their way before the writers wait.
const WINDOW: u64 = 400;

/// What watchers and writers share.
struct Run {
    protocol: Protocol,
    start: Instant,
    counting: AtomicBool,
    over: AtomicBool,
    /// Calls written.
    written: AtomicU64,
    /// Events received, by all watchers together, since the start.
    received: AtomicU64,
    ages: Mutex<Histogram<u64>>,
}

/// Watches and writes, and returns the measurement.
pub(crate) async fn watch(options: &Watch) -> Result<Sample> {
    let run = Arc::new(Run {
        protocol: options.protocol,
        start: Instant::now(),
        counting: AtomicBool::new(false),
        over: AtomicBool::new(false),
        written: AtomicU64::new(0),
        received: AtomicU64::new(0),
        ages: Mutex::new(histogram()),
    });
    let mut watchers = begin_watching(options, &run).await?;
    if options.hold {
        println!("watching");
        let end = || std::io::read_to_string(std::io::stdin());
        tokio::task::spawn_blocking(end).await??;
        return Ok(Sample::default());
    }
    let stalled = match options.stalled {
        true => Some(open(run.protocol, None, channel(&options.endpoint).await?).await?),
        false => None,
    };
    let all = options.watchers as u64 + u64::from(options.stalled);
    let mut writers = begin_writing(options, &run).await?;
    sleep(Duration::from_secs_f64(options.seconds / 4.0)).await;
    run.counting.store(true, Ordering::Relaxed);
    let (before, counted) = (run.received.load(Ordering::Relaxed), Instant::now());
    let mut ended = None;
    tokio::select! {
        () = sleep(Duration::from_secs_f64(options.seconds)) => {}
        end = watchers.join_next() => ended = end,
        end = writers.join_next() => ended = end,
    }
    if let Some(ended) = ended {
        ended??;
        return Err("a watcher or a writer ended".into());
    }
    let received = run.received.load(Ordering::Relaxed) - before;
    let rate = received as f64 / counted.elapsed().as_secs_f64();
    run.over.store(true, Ordering::Relaxed);
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    if let Some(stalled) = stalled {
        let run = run.clone();
        watchers.spawn(async move { run.read(stalled, false).await });
    }
    run.await_rest(all).await?;
    let ages = run.ages.lock().map_err(|_| "a watcher panicked")?;
    let mut sample = match options.rate {
        Some(_) => Sample::latencies(&ages),
        None => Sample::default(),
    };
    sample.set(Metric::Rate, rate);
    Ok(sample)
}

/// The tasks that watch or write, until they end or are dropped.
type Tasks = JoinSet<Result<()>>;

async fn begin_watching(options: &Watch, run: &Arc<Run>) -> Result<Tasks> {
    let watched = options.watched.as_ref().unwrap_or(&options.endpoint);
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS.max(options.watchers / PER_CONNECTION) {
        channels.push(channel(watched).await?);
    }
    let mut watchers = Tasks::new();
    for n in 0..options.watchers {
        let staff = options.of_staff.then(|| calls::own_staff(n as u64));
        let events = open(run.protocol, staff, channels[n % channels.len()].clone()).await?;
        let (run, aged) = (run.clone(), options.rate.is_some());
        watchers.spawn(async move { run.read(events, aged).await });
    }
    Ok(watchers)
}

async fn begin_writing(options: &Watch, run: &Arc<Run>) -> Result<Tasks> {
    let mut writers = Tasks::new();
    let count = match options.rate {
        Some(_) => 1,
        None => WRITING.div_ceil(options.batch),
    };
    let channel = channel(&options.endpoint).await?;
    for _ in 0..count {
        let client = Client::new(run.protocol.target(), channel.clone());
        let (run, options) = (run.clone(), options.clone());
        writers.spawn(async move {
            match options.rate {
                Some(rate) => run.write_at(client, rate).await,
                None => run.write_all(client, &options).await,
            }
        });
    }
    Ok(writers)
}

/// A stream of all new changes, or of those of one member of staff.
async fn open(
    protocol: Protocol,
    staff: Option<String>,
    channel: Channel,
) -> Result<Streaming<Bytes>> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    // etcd ends a watch whose requests end.
    let request = stream::once(std::future::ready(protocol.request(staff)));
    let requests = if protocol == Protocol::Etcd {
        request.chain(stream::pending()).boxed()
    } else {
        request.boxed()
    };
    let path = PathAndQuery::from_static(protocol.path());
    let events = grpc.streaming(Request::new(requests), path, Raw).await?;
    let mut events = events.into_inner();
    if protocol.confirms() {
        events.message().await?.ok_or("the watch ended")?;
    }
    Ok(events)
}

impl Run {
    async fn read(&self, mut events: Streaming<Bytes>, aged: bool) -> Result<()> {
        while let Some(message) = events.message().await? {
            let count = self.protocol.events(&message);
            self.received.fetch_add(count, Ordering::Relaxed);
            if aged && self.counting.load(Ordering::Relaxed) {
                let now = micros(self.start.elapsed());
                if let Ok(mut ages) = self.ages.lock() {
                    for sent in sent_at(&message) {
                        ages.saturating_record(now.saturating_sub(sent));
                    }
                }
            }
        }
        Err("a watch ended".into())
    }

    /// Writes as fast as all watchers together receive.
    async fn write_all(&self, mut client: Client, options: &Watch) -> Result<()> {
        let (watchers, batch) = (options.watchers as u64, options.batch);
        while !self.over.load(Ordering::Relaxed) {
            let delivered = self.received.load(Ordering::Relaxed) / watchers;
            if self.written.load(Ordering::Relaxed) > delivered + WINDOW {
                sleep(Duration::from_millis(1)).await;
                continue;
            }
            self.written.fetch_add(batch as u64, Ordering::Relaxed);
            write(&mut client, batch, None).await?;
        }
        Ok(())
    }

    /// Writes one call at a time, `rate` a second, each with the time at which
    /// it was sent.
    async fn write_at(&self, client: Client, rate: f64) -> Result<()> {
        let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut under_way = JoinSet::new();
        while !self.over.load(Ordering::Relaxed) {
            ticks.tick().await;
            let mut client = client.clone();
            let sent = micros(self.start.elapsed());
            self.written.fetch_add(1, Ordering::Relaxed);
            under_way.spawn(async move { write(&mut client, 1, Some(sent)).await });
            while let Some(written) = under_way.try_join_next() {
                written??;
            }
        }
        while let Some(written) = under_way.join_next().await {
            written??;
        }
        Ok(())
    }

    /// Every watcher must have received every event.
    async fn await_rest(&self, watchers: u64) -> Result<()> {
        let all = self.written.load(Ordering::Relaxed) * watchers;
        for _ in 0..3000 {
            match self.received.load(Ordering::Relaxed) {
                received if received == all => return Ok(()),
                received if received > all => break,
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
        let received = self.received.load(Ordering::Relaxed);
        Err(format!("{received} of {all} events were received").into())
    }
}

async fn write(client: &mut Client, count: usize, sent: Option<u64>) -> Result<(), Status> {
    let call = || proto::VoiceCall {
        call_summary: Some(marker(sent.unwrap_or_default())),
        ..calls::new()
    };
    match client {
        Client::Voicecall(client) if count == 1 => {
            let request = proto::CreateVoiceCallRequest {
                voice_call: Some(call()),
                request_id: calls::request_id(),
                ..Default::default()
            };
            client.create_voice_call(request).await.map(drop)
        }
        Client::Voicecall(client) => {
            let request = proto::BatchCreateVoiceCallsRequest {
                voice_calls: (0..count).map(|_| call()).collect(),
                request_id: calls::request_id(),
            };
            client.batch_create_voice_calls(request).await.map(drop)
        }
        Client::Etcd(client) => {
            let value = prost::Message::encode_to_vec(&proto::VoiceCall {
                call_summary: call().call_summary,
                ..calls::stored()
            });
            let value = Bytes::from(value);
            if count == 1 {
                return client.put(&calls::request_id(), value).await;
            }
            let all = (0..count).map(|_| (calls::request_id(), value.clone()));
            client.put_all(all).await
        }
    }
}
