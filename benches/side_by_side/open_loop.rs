//! An open loop: requests begin when they are due, whether or not earlier ones have ended, as in
//! an overload. They use bare HTTP/2, and their responses are not decoded, because a driver that
//! needs a whole core would measure itself.

use std::{sync::Arc, time::Duration};

use h2::client::{Builder, SendRequest};
use hdrhistogram::Histogram;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_TYPE, TE},
};
use prost::bytes::Bytes;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tonic::Code;
use voicecall::proto::SERVICE_NAME;

use crate::{
    Result,
    driver::{histogram, micros, quantile},
    load::{Ask, CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Workload, socket},
    sample::{Metric, Sample},
};

/// Connections that the requests share.
const CONNECTIONS: usize = 16;
/// The most requests in progress: more would wait for the connections, which accept 1024 each.
/// Requests that are not begun for this reason are missing from the measured rate.
const MAX_IN_PROGRESS: usize = CONNECTIONS * 1024;

/// The measurement so far.
struct Seen {
    /// When counting begins. Latencies are those of requests that were due since, rates count
    /// the responses since.
    counted: Instant,
    answered: Histogram<u64>,
    refused: Histogram<u64>,
    answers: u64,
    refusals: u64,
    failed: u64,
    /// The first failure.
    failure: Option<String>,
}

/// The outcome of a request.
struct Ended {
    due: Instant,
    sent: Instant,
    at: Instant,
    outcome: Result<Code>,
}

/// Sends requests at this rate. Latencies count from when a request was due, so they include any
/// wait, also in the driver.
pub(crate) async fn run(
    endpoint: &str,
    work: &Arc<Workload>,
    rate: f64,
    time: Duration,
) -> Result<Sample> {
    let mut connections = Vec::new();
    let mut open = JoinSet::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(endpoint, &mut open).await?);
    }
    let start = Instant::now();
    let counted = start + time / 4;
    let end = counted + time;
    let mut in_progress = JoinSet::new();
    let mut seen = Seen::since(counted);
    let (mut due, mut begun) = (0u32, 0u64);
    loop {
        let at = start + Duration::from_secs_f64(f64::from(due) / rate);
        if at >= end {
            break;
        }
        if at > Instant::now() {
            sleep_until(at).await;
        } else if due.is_multiple_of(16) {
            // Lets the requests in progress run even if the driver is late.
            tokio::task::yield_now().await;
        }
        while let Some(ended) = in_progress.try_join_next() {
            seen.note(ended?);
        }
        if Instant::now() > end {
            break;
        }
        if in_progress.len() < MAX_IN_PROGRESS {
            begun += u64::from(at >= counted);
            let connection = connections[due as usize % connections.len()].clone();
            in_progress.spawn(connection.ask(work.next(), at));
        }
        due += 1;
    }
    let seconds = counted.elapsed().as_secs_f64();
    while let Some(ended) = in_progress.try_join_next() {
        seen.note(ended?);
    }
    // What is answered later was not answered in this time.
    let (answers, refusals) = (seen.answers as f64, seen.refusals as f64);
    let rest = async {
        while let Some(ended) = in_progress.join_next().await {
            seen.note(ended?);
        }
        Ok::<_, tokio::task::JoinError>(())
    };
    tokio::time::timeout(Duration::from_secs(20), rest).await??;
    let mut sample = seen.sample()?;
    sample.set(Metric::Offered, begun as f64 / seconds);
    sample.set(Metric::Rate, answers / seconds);
    sample.set(Metric::Refused, refusals / seconds);
    Ok(sample)
}

impl Seen {
    /// An empty measurement.
    fn since(counted: Instant) -> Self {
        Self {
            counted,
            answers: 0,
            refusals: 0,
            answered: histogram(),
            refused: histogram(),
            failed: 0,
            failure: None,
        }
    }

    /// The latencies.
    fn sample(&self) -> Result<Sample> {
        if let Some(failure) = &self.failure {
            let failed = self.failed;
            return Err(format!("{failed} requests failed and were not refused: {failure}").into());
        }
        let mut sample = Sample::latencies(&self.answered);
        sample.set(Metric::RefusedP99, quantile(&self.refused, 0.99));
        Ok(sample)
    }

    fn note(&mut self, ended: Ended) {
        if ended.at < self.counted {
            return;
        }
        // An answer is late by what the driver is late, a refusal is not.
        let (count, latencies, from) = match ended.outcome {
            Ok(Code::Ok) => (&mut self.answers, &mut self.answered, ended.due),
            Ok(Code::ResourceExhausted) => (&mut self.refusals, &mut self.refused, ended.sent),
            Ok(code) => return self.fail(&code),
            Err(error) => return self.fail(&error),
        };
        *count += 1;
        if ended.due >= self.counted {
            latencies.saturating_record(micros(ended.at - from));
        }
    }

    fn fail(&mut self, failure: &impl ToString) {
        self.failed += 1;
        self.failure.get_or_insert_with(|| failure.to_string());
    }
}

/// One connection. Clones share it.
#[derive(Clone)]
struct Connection {
    requests: SendRequest<Bytes>,
    endpoint: Uri,
}

impl Connection {
    /// Opens a connection, which is driven by a task in `open`.
    async fn open(endpoint: &str, open: &mut JoinSet<Result<(), h2::Error>>) -> Result<Self> {
        let endpoint: Uri = endpoint.parse()?;
        let (requests, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(socket(&endpoint).await?)
            .await?;
        open.spawn(connection);
        Ok(Self { requests, endpoint })
    }

    /// Sends a request that is due, and returns its outcome.
    async fn ask(self, ask: Ask, due: Instant) -> Ended {
        let sent = Instant::now();
        let outcome = self.status(&ask).await;
        Ended {
            due,
            sent,
            at: Instant::now(),
            outcome,
        }
    }

    /// Waits for the response, and returns its status.
    async fn status(self, ask: &Ask) -> Result<Code> {
        let (request, message) = self.request(ask)?;
        let mut requests = self.requests.ready().await?;
        let (response, mut body) = requests.send_request(request, false)?;
        body.send_data(message, true)?;
        let (head, mut body) = response.await?.into_parts();
        // What is refused has its status at once.
        if let Some(code) = code(&head.headers) {
            return Ok(code);
        }
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data?.len())?;
        }
        let trailers = body.trailers().await?;
        Ok(trailers.as_ref().and_then(code).unwrap_or(Code::Unknown))
    }

    fn request(&self, ask: &Ask) -> Result<(Request<()>, Bytes)> {
        let (method, message) = ask.encode();
        let mut uri = self.endpoint.clone().into_parts();
        uri.path_and_query = Some(format!("/{SERVICE_NAME}/{method}").parse()?);
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(uri)?;
        let headers = request.headers_mut();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Ok((request, message))
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get("grpc-status")?;
    Some(Code::from_bytes(status.as_bytes()))
}
