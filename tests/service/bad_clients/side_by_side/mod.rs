//! A well-behaved client beside each kind of bad one, on one server at its default settings with
//! a million calls: it is served as if it were alone.
//!
//! - `well_behaved`: the client whose figures must stay what they are
//! - `misbehaviours`: what the bad one does, in a process of its own
//! - `figures`: what is measured, and what is asserted of it
//!
//! It runs only with VOICECALL_TEST_LONG set, and is meant for a release build, which
//! VOICECALL_TEST_PROGRAM names. VOICECALL_TEST_SECONDS is how long the two run beside each other,
//! ten seconds by default; VOICECALL_TEST_BESIDE selects misbehaviours by a part of their names.
//! The table is printed (`--nocapture`).

mod figures;
mod misbehaviours;
mod well_behaved;

use std::{
    env,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use voicecall::proto::VoiceCall;

use self::{
    figures::{Beside, Table, processor_time},
    misbehaviours::{LARGE, MISBEHAVIOURS, Misbehaviour},
};
use crate::support::{
    inbound,
    load::busy_time,
    postgres::{Cluster, Durability, connect},
    reference,
    server::Process,
    writes::batch_of,
};

const CALLS: u64 = 1_000_000;
/// Names the misbehaviour to the process of the bad client, and the server.
const MISBEHAVIOUR: &str = "VOICECALL_TEST_MISBEHAVIOUR";
const ENDPOINT: &str = "VOICECALL_TEST_ENDPOINT";
/// What the bad client prints once its misbehaviour is under way.
const BEGUN: &str = "the misbehaviour has begun";
/// For connections to be made and plans to be cached.
const WARM_UP: Duration = Duration::from_secs(2);

/// Calls 1 to `$1` as they are now; what they were before is past the log's retention.
const SEED: &str = "\
    INSERT INTO voice_calls (uid, duration, created_at, updated_at, status, direction, \
        staff_uid, client_uid, from_number, to_number, call_summary, revision) \
    SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, n % 3600, at, at, \
        (CASE WHEN n % 5 = 0 THEN 'missed' ELSE 'answered by staff' END)::voice_call_status, \
        'inbound', 'staff ' || n % 500, 'client ' || n % 50000, \
        '+1415' || lpad((n % 100000)::text, 7, '0'), '+1628' || lpad((n % 100)::text, 7, '0'), \
        'Client called to ask about their account balance', n \
    FROM generate_series(1::bigint, $1) n, \
        LATERAL (SELECT now() - interval '6 days' * (1 - n::float8 / $1) AS at) times";
const SEED_LOG: &str = "\
    INSERT INTO voice_call_batches (last_revision, stamp, committed_at) VALUES ($1, 1, now())";
const SEED_FLOOR: &str = "UPDATE feed SET oldest_revision = $1";

/// The bad client: a process whose standard input keeps it alive.
struct BadClient {
    child: Child,
    _alive: ChildStdin,
    _output: BufReader<ChildStdout>,
}

impl BadClient {
    /// Starts it; its misbehaviour is under way.
    fn start(misbehaviour: &Misbehaviour, endpoint: &str) -> Self {
        let mut child = Command::new(env::current_exe().expect("it runs"))
            .args(["--exact", "--nocapture"])
            .arg("bad_clients::side_by_side::the_process_of_a_bad_client")
            .env(MISBEHAVIOUR, misbehaviour.name)
            .env(ENDPOINT, endpoint)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is this program");
        let alive = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = output.by_ref().lines();
        let begun = lines.any(|line| line.is_ok_and(|line| line.contains(BEGUN)));
        assert!(begun, "{} has ended", misbehaviour.name);
        Self {
            child,
            _alive: alive,
            _output: output,
        }
    }
}

impl Drop for BadClient {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other process of the test below; nothing when it is run by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_of_a_bad_client() {
    let Ok(name) = env::var(MISBEHAVIOUR) else {
        return;
    };
    let endpoint = env::var(ENDPOINT).expect("it comes with the name");
    std::thread::spawn(|| {
        // Nothing comes but the end.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let misbehaviour = MISBEHAVIOURS.iter().find(|one| one.name == name);
    let misbehave = misbehaviour.expect("there is one of this name").run;
    misbehave(endpoint, || println!("{BEGUN}")).await;
    panic!("it ends only when it is told to");
}

/// A server over a million calls.
async fn server(cluster: &Cluster) -> Process {
    let control = connect(&cluster.url("postgres")).await;
    control
        .batch_execute("CREATE DATABASE side_by_side")
        .await
        .expect("the name is new");
    let url = cluster.url("side_by_side");
    // The program makes its own schema, which may be another release's.
    drop(Process::start(&[("DATABASE_URL", &url)]));
    let database = connect(&url).await;
    let calls = i64::try_from(CALLS).expect("it fits");
    for sql in [SEED, SEED_LOG, SEED_FLOOR] {
        database.execute(sql, &[&calls]).await.expect(sql);
    }
    let settle = "VACUUM (ANALYZE) voice_calls, voice_call_batches; CHECKPOINT";
    for sql in settle.split("; ") {
        database.batch_execute(sql).await.expect(sql);
    }
    let server = Process::start(&[("DATABASE_URL", &url)]);
    // Older than all others, so that only who asks for them gets them.
    let large = VoiceCall {
        created_at: reference().created_at,
        client_uid: Some(LARGE.to_owned()),
        call_summary: Some("x".repeat(60_000)),
        ..inbound()
    };
    let created = batch_of(vec![large; 30]).send(&mut server.client()).await;
    created.expect("they fit");
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_well_behaved_client_is_served_as_if_it_were_alone() {
    if env::var_os("VOICECALL_TEST_LONG").is_none() {
        println!("skipped: minutes beside bad clients; VOICECALL_TEST_LONG=1 runs it");
        return;
    }
    let cluster = Cluster::start(Durability::Durable);
    let mut server = server(&cluster).await;
    let pid = server.child.id();
    well_behaved::run(&server.endpoint, CALLS, WARM_UP).await;
    let quiet = well_behaved::run(&server.endpoint, CALLS, busy_time()).await;
    let mut table = Table::new(quiet, server.peak_kib());
    let only = env::var("VOICECALL_TEST_BESIDE").unwrap_or_default();
    for misbehaviour in MISBEHAVIOURS.iter().filter(|it| it.name.contains(&only)) {
        server.forget_peak();
        let mut bad_client = BadClient::start(misbehaviour, &server.endpoint);
        let bad_pid = bad_client.child.id();
        let before = (processor_time(bad_pid), processor_time(pid));
        let measured = well_behaved::run(&server.endpoint, CALLS, busy_time()).await;
        table.add(Beside {
            name: misbehaviour.name,
            measured,
            bad_client: processor_time(bad_pid) - before.0,
            server: processor_time(pid) - before.1,
            peak_kib: server.peak_kib(),
            ended: bad_client.child.try_wait().expect("it is our child"),
        });
    }
    let ended = server.child.try_wait().expect("it is our child");
    assert!(ended.is_none(), "{ended:?}");
    table.check();
}
