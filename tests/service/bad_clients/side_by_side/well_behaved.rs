//! A client that does nothing wrong: look-ups, creates, lists, look-ups on connections of their
//! own, and a watch, each at its own pace and with a deadline.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use rand::Rng;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tonic::{Request, transport::Endpoint};
use voicecall::proto::{
    CreateVoiceCallRequest, GetVoiceCallRequest, ListVoiceCallsRequest, VoiceCall,
    watch_voice_calls_response::Message,
};

use crate::support::{
    Client, reference, request_id,
    server::client,
    watcher::{Watcher, from, live},
};

/// The deadline of each request.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the client measured, by kind of request.
pub(super) type Measured = BTreeMap<&'static str, Kind>;

/// Requests of one kind.
pub(super) struct Kind {
    /// In microseconds, of requests that were served.
    pub(super) latencies: Histogram<u64>,
    /// Why the others were not.
    pub(super) failures: Vec<String>,
}

impl Kind {
    fn new() -> Self {
        Self {
            latencies: Histogram::new(3).expect("three digits"),
            failures: Vec::new(),
        }
    }

    fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).expect("it is short");
        self.latencies.record(micros).expect("it grows");
    }
}

/// Runs the client for so long, on a database whose seeded calls are 1 to `calls`.
pub(super) async fn run(endpoint: &str, calls: u64, time: Duration) -> Measured {
    // Requests, the watch, and lists have connections of their own, as in several programs.
    let clients = [(); 4].map(|()| client(endpoint));
    let [getting, creating, listing, watching] = clients;
    let (started, has_started) = oneshot::channel();
    let (tell, last) = oneshot::channel();
    let watch = tokio::spawn(watch(watching, started, last));
    // An error of the watch is told at the end.
    let _ = has_started.await;
    let until = Instant::now() + time;
    let gets = paced(Duration::from_millis(5), until, async || {
        get(getting.clone(), calls).await.map(drop)
    });
    let mut created = Vec::new();
    let creates = paced(Duration::from_millis(10), until, async || {
        let begun = Instant::now();
        created.push((create(creating.clone()).await?, begun));
        Ok(())
    });
    let lists = paced(Duration::from_millis(20), until, async || {
        list(listing.clone()).await
    });
    let connects = paced(Duration::from_millis(50), until, async || {
        connect_and_get(endpoint, calls).await
    });
    let (gets, creates, lists, connects) = tokio::join!(gets, creates, lists, connects);
    // The watch may have ended.
    let _ = tell.send(created.last().map_or(0, |(revision, _)| *revision));
    let watched = watch.await.map_err(|panic| panic.to_string());
    BTreeMap::from([
        ("get", gets),
        ("create", creates),
        ("list", lists),
        ("connect and get", connects),
        ("create to event", ages(&created, watched.and_then(|it| it))),
    ])
}

/// Sends a request each time, or as soon as the one before has ended.
async fn paced(
    every: Duration,
    until: Instant,
    mut send: impl AsyncFnMut() -> Result<(), String>,
) -> Kind {
    let mut kind = Kind::new();
    let mut due = Instant::now();
    while due < until {
        if Instant::now() >= until + DEADLINE {
            kind.failures.push("its turn has not come".to_owned());
            due += every;
            continue;
        }
        // A request that is late has waited for the one before, as its user has.
        let begun = if Instant::now() < due {
            sleep_until(due).await;
            Instant::now()
        } else {
            due
        };
        match timeout(DEADLINE, send()).await {
            Ok(Ok(())) => kind.record(begun.elapsed()),
            Ok(Err(failure)) => kind.failures.push(failure),
            Err(_) => kind.failures.push("no response in time".to_owned()),
        }
        due += every;
    }
    kind
}

/// A request with the deadline.
fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

async fn get(mut client: Client, calls: u64) -> Result<(), String> {
    let number = rand::rng().random_range(1..=calls);
    let request = GetVoiceCallRequest {
        uid: format!("00000000-0000-4000-8000-{number:012}"),
        ..Default::default()
    };
    let response = client.get_voice_call(within(request)).await;
    response.map(drop).map_err(|status| status.to_string())
}

/// Creates a call; returns its revision.
async fn create(mut client: Client) -> Result<i64, String> {
    let request = CreateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: String::new(),
            ..reference()
        }),
        request_id: request_id(),
        ..Default::default()
    };
    let response = client.create_voice_call(within(request)).await;
    let response = response.map_err(|status| status.to_string())?.into_inner();
    Ok(response.voice_call.expect("always set").revision)
}

async fn list(mut client: Client) -> Result<(), String> {
    let request = ListVoiceCallsRequest {
        page_size: 20,
        ..Default::default()
    };
    let response = client.list_voice_calls(within(request)).await;
    response.map(drop).map_err(|status| status.to_string())
}

async fn connect_and_get(endpoint: &str, calls: u64) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned()).expect("valid");
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| error.to_string())?;
    get(Client::new(channel), calls).await
}

/// Watches until the revision that is told at the end; returns when each came.
async fn watch(
    mut client: Client,
    started: oneshot::Sender<()>,
    mut last: oneshot::Receiver<i64>,
) -> Result<Vec<(i64, Instant)>, String> {
    let watcher = timeout(DEADLINE, async {
        let mut watcher = Watcher::start(&mut client, from(live())).await?;
        watcher.next().await.map(|_| watcher)
    });
    let watcher = watcher.await.map_err(|_| "no watch in time".to_owned())?;
    let mut watcher = watcher.map_err(|status| status.to_string())?;
    // The client waits for it.
    let _ = started.send(());
    let mut seen = Vec::new();
    let mut end = None;
    loop {
        let reached = seen.last().map_or(0, |(revision, _)| *revision);
        if end.is_some_and(|(revision, _)| reached >= revision) {
            return Ok(seen);
        }
        let give_up = end.map(|(_, give_up)| give_up);
        let give_up = give_up.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            told = &mut last, if end.is_none() => {
                end = Some((told.unwrap_or(0), Instant::now() + DEADLINE));
            }
            message = timeout_at(give_up, watcher.next()) => {
                let message = message.map_err(|_| "no event in time".to_owned())?;
                if let Message::EventBatch(batch) =
                    message.map_err(|status| status.to_string())?
                {
                    let now = Instant::now();
                    let changes = batch.events.into_iter().filter_map(|event| event.change);
                    seen.extend(changes.map(|change| (change.revision, now)));
                }
            }
        }
    }
}

/// How long after the begin of its create each event came.
fn ages(created: &[(i64, Instant)], watched: Result<Vec<(i64, Instant)>, String>) -> Kind {
    let mut kind = Kind::new();
    match watched {
        Err(failure) => kind.failures.push(failure),
        Ok(watched) => {
            let watched: BTreeMap<i64, Instant> = watched.into_iter().collect();
            for (revision, begun) in created {
                match watched.get(revision) {
                    Some(seen) => kind.record(seen.duration_since(*begun)),
                    None => kind.failures.push(format!("no event of {revision}")),
                }
            }
        }
    }
    kind
}
