//! A small closed-loop load on a running service, beside pgbench doing the
//! equivalent one-row statements on the same PostgreSQL.
//!
//! ```sh
//! cargo run --release --example load -- --database-url "$DATABASE_URL"
//! ```
//!
//! starts nothing but pgbench: the service must run already, on another database
//! of the same PostgreSQL than the one given, which must be migrated and may be
//! thrown away. Without `--database-url` only the service is measured.

use std::{
    error::Error,
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use hdrhistogram::Histogram;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;
use voicecall::{
    api::proto::{self, voice_call_service_client::VoiceCallServiceClient},
    server::Gather,
};

#[derive(Parser)]
struct Args {
    /// Where the service listens.
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    endpoint: String,
    /// A migrated database for pgbench, on the service's PostgreSQL.
    #[arg(long)]
    database_url: Option<String>,
    /// The pgbench program.
    #[arg(long, default_value = "pgbench")]
    pgbench: String,
    /// Requests under way at once.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Connections that they share.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Seconds for each measurement, after a quarter of that as warm-up.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_value = "create,get,update")]
    loads: Vec<Load>,
    /// Rounds; the medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Load {
    Create,
    Get,
    Update,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// One thread drives as much as two, and leaves the service more of the machine.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut note = |name, rate| match rows.iter_mut().find(|(known, _)| *known == name) {
        Some((_, rates)) => rates.push(rate),
        None => rows.push((name, vec![rate])),
    };
    for _ in 0..args.rounds {
        let uids = Arc::new(seed(&args).await?);
        for &load in &args.loads {
            let name = match load {
                Load::Create => "create",
                Load::Get => "get",
                Load::Update => "update",
            };
            let (rate, latencies) = run(&args, load, &uids).await?;
            println!(
                "{name:<22} {rate:>9.0}/s   p50 {:>6.2} ms   p99 {:>6.2} ms",
                latencies.value_at_quantile(0.5) as f64 / 1e3,
                latencies.value_at_quantile(0.99) as f64 / 1e3,
            );
            note(name, rate);
        }
        if let Some(url) = &args.database_url {
            for (name, script) in [("pgbench insert", INSERT), ("pgbench select", SELECT)] {
                let best = [16, 64]
                    .into_iter()
                    .map(|clients| pgbench(&args, url, clients, script))
                    .collect::<Result<Vec<_>, _>>()?
                    .into_iter()
                    .fold(0.0, f64::max);
                println!("{name:<22} {best:>9.0}/s");
                note(name, best);
            }
        }
    }
    println!("\nmedians of {} rounds", args.rounds);
    let medians: Vec<(&str, f64)> = rows
        .into_iter()
        .map(|(name, mut rates)| {
            rates.sort_by(f64::total_cmp);
            (name, rates[rates.len() / 2])
        })
        .collect();
    for (name, rate) in &medians {
        println!("{name:<22} {rate:>9.0}/s");
    }
    let of = |wanted| {
        medians
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, rate)| *rate)
    };
    for (ours, theirs) in [("create", "pgbench insert"), ("get", "pgbench select")] {
        if let (Some(a), Some(b)) = (of(ours), of(theirs)) {
            println!("{ours} / {theirs}: {:.2}", a / b);
        }
    }
    Ok(())
}

type Client = VoiceCallServiceClient<Channel>;

async fn client(args: &Args) -> Result<Client, Box<dyn Error>> {
    // A driver that writes each request by itself costs more than the service.
    let connect = tower::service_fn(async |uri: http::Uri| {
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok::<_, std::io::Error>(TokioIo::new(Gather::new(socket)))
    });
    let channel = Endpoint::from_shared(args.endpoint.clone())?
        .connect_with_connector(connect)
        .await?;
    Ok(VoiceCallServiceClient::new(channel))
}

fn call() -> proto::VoiceCall {
    let staff = Uuid::new_v4().to_string();
    proto::VoiceCall {
        duration: Some(120),
        status: proto::VoiceCallStatus::AnsweredByStaff.into(),
        direction: proto::VoiceCallDirection::Inbound.into(),
        staff_uid: Some(staff),
        client_uid: Some(Uuid::new_v4().to_string()),
        from_number: Some(format!("+1415555{:04}", rand::random_range(0..10_000))),
        to_number: Some(format!("+1415556{:04}", rand::random_range(0..10_000))),
        recording_url: Some("https://example.com/recording.mp3".into()),
        call_summary: Some("Client called to ask about their account balance".into()),
        external_app_url: Some("https://example.com/call-details".into()),
        ..Default::default()
    }
}

/// Calls to look up and update.
async fn seed(args: &Args) -> Result<Vec<String>, Box<dyn Error>> {
    let mut client = client(args).await?;
    let mut uids = Vec::new();
    for _ in 0..10 {
        let request = proto::BatchCreateVoiceCallsRequest {
            voice_calls: (0..1000).map(|_| call()).collect(),
            ..Default::default()
        };
        let created = client.batch_create_voice_calls(request).await?.into_inner();
        uids.extend(created.voice_calls.into_iter().map(|call| call.uid));
    }
    Ok(uids)
}

async fn run(
    args: &Args,
    load: Load,
    uids: &Arc<Vec<String>>,
) -> Result<(f64, Histogram<u64>), Box<dyn Error>> {
    let counting = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        clients.push(client(args).await?);
    }
    let workers: Vec<_> = (0..args.concurrency)
        .map(|n| {
            let mut client = clients[n % clients.len()].clone();
            let (counting, over, uids) = (counting.clone(), over.clone(), uids.clone());
            #[expect(clippy::disallowed_methods, reason = "joined below")]
            tokio::spawn(async move {
                let mut latencies = histogram();
                while !over.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    one(&mut client, load, &uids).await?;
                    if counting.load(Ordering::Relaxed) {
                        latencies.saturating_record(micros(started.elapsed()));
                    }
                }
                Ok::<_, tonic::Status>(latencies)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(args.seconds) / 4).await;
    counting.store(true, Ordering::Relaxed);
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let elapsed = started.elapsed();
    over.store(true, Ordering::Relaxed);
    let mut all = histogram();
    for worker in workers {
        all.add(worker.await??)?;
    }
    Ok((all.len() as f64 / elapsed.as_secs_f64(), all))
}

/// Latencies up to a minute, in microseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn one(client: &mut Client, load: Load, uids: &[String]) -> Result<(), tonic::Status> {
    let uid = || uids[rand::random_range(0..uids.len())].clone();
    let request_id = || Uuid::new_v4().to_string();
    match load {
        Load::Create => {
            let request = proto::CreateVoiceCallRequest {
                voice_call: Some(call()),
                request_id: request_id(),
                ..Default::default()
            };
            client.create_voice_call(request).await.map(drop)
        }
        Load::Get => {
            let request = proto::GetVoiceCallRequest {
                uid: uid(),
                ..Default::default()
            };
            client.get_voice_call(request).await.map(drop)
        }
        Load::Update => {
            let status = if rand::random() {
                proto::VoiceCallStatus::Missed
            } else {
                proto::VoiceCallStatus::AnsweredByVonage
            };
            let request = proto::UpdateVoiceCallRequest {
                voice_call: Some(proto::VoiceCall {
                    uid: uid(),
                    status: status.into(),
                    ..Default::default()
                }),
                request_id: request_id(),
                ..Default::default()
            };
            client.update_voice_call(request).await.map(drop)
        }
    }
}

/// The row that a create writes, without a change log or a request record.
const INSERT: &str = "\\set n random(1, 10000)
INSERT INTO voice_calls (uid, duration, created_at, updated_at, status, direction, staff_uid,
    client_uid, from_number, to_number, recording_url, call_summary, external_app_url, revision)
VALUES (gen_random_uuid(), 120, now(), now(), 'answered by staff', 'inbound',
    gen_random_uuid()::text, gen_random_uuid()::text, '+1415555' || :n, '+1415556' || :n,
    'https://example.com/recording.mp3', 'Client called to ask about their account balance',
    'https://example.com/call-details', 1);
";

/// A look-up by primary key.
const SELECT: &str = "\\set n random(1, 10000)
SELECT * FROM voice_calls WHERE uid = ('00000000-0000-4000-8000-' || lpad(:n::text, 12, '0'))::uuid;
";

/// Ten thousand rows with known keys for the look-ups.
const PREPARE: &str = "INSERT INTO voice_calls (uid, duration, created_at, updated_at, status, direction,
    staff_uid, client_uid, from_number, to_number, recording_url, call_summary, external_app_url, revision)
SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 120, now(), now(),
    'answered by staff', 'inbound', gen_random_uuid()::text, gen_random_uuid()::text, '+14155550148',
    '+14155560148', 'https://example.com/recording.mp3',
    'Client called to ask about their account balance', 'https://example.com/call-details', 1
FROM generate_series(1, 10000) n ON CONFLICT DO NOTHING;
";

fn pgbench(args: &Args, url: &str, clients: usize, script: &str) -> Result<f64, Box<dyn Error>> {
    pgbench_once(args, url, PREPARE, &["-c", "1", "-t", "1"])?;
    let (clients, seconds) = (clients.to_string(), args.seconds.to_string());
    pgbench_once(
        args,
        url,
        script,
        &["-c", &clients, "-j", "2", "-T", &seconds],
    )
}

fn pgbench_once(
    args: &Args,
    url: &str,
    script: &str,
    options: &[&str],
) -> Result<f64, Box<dyn Error>> {
    let mut child = Command::new(&args.pgbench)
        .args(["-n", "-M", "prepared", "-f", "/dev/stdin"])
        .args(options)
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .ok_or("no pipe")?
        .write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    let rate = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.ok_or_else(|| format!("pgbench printed no rate: {text}").into())
}
