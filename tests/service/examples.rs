//! The examples in other languages, run as their README says, through the death of
//! the server they watch.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use voicecall::api::proto::{self, VoiceCall};

use crate::support::{
    Client, create, delete, handle, inbound, postgres::Cluster, server::Process, update,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PATIENCE: Duration = Duration::from_secs(30);
const STAFF: &str = "5ya4gbwm2c3qic8";
static FILES: AtomicU32 = AtomicU32::new(0);

/// Runs an example of this language.
fn example(language: &str, name: &str, args: &[&str]) -> Command {
    let (program, extension) = match language {
        "python" => (
            format!("{ROOT}/tests/interop/python/.venv/bin/python"),
            "py",
        ),
        _ => ("node".into(), "js"),
    };
    let mut command = Command::new(program);
    command
        .arg(format!("{ROOT}/examples/{language}/{name}.{extension}"))
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    command
}

/// What a watching example prints.
struct Consumer {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Consumer {
    fn start(language: &str, address: &str, file: &str) -> Self {
        let mut child = example(language, "watch", &[address, file, STAFF])
            .spawn()
            .expect("`scripts/install interop` has installed it");
        let stdout = child.stdout.take().expect("piped");
        Self {
            lines: BufReader::new(stdout).lines(),
            _child: child,
        }
    }

    /// The next changes, up to this revision.
    async fn until(&mut self, revision: i64) -> Vec<i64> {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| *last < revision) {
            let line = timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.expect("it goes on").expect("text").expect("it runs");
            let first = line.split(' ').next().unwrap_or_default();
            seen.push(first.parse().expect("a revision"));
        }
        seen
    }
}

async fn new_call(client: &mut Client) -> VoiceCall {
    let call = VoiceCall {
        staff_uid: Some(STAFF.into()),
        ..inbound()
    };
    create(client, call).await
}

/// Makes changes of every kind, all of which are in the view.
async fn change(client: &mut Client) -> Vec<i64> {
    let mut revisions = Vec::new();
    let kept = new_call(client).await;
    let handled = handle(client, &kept.uid, "eve").await.expect("allowed");
    let exited = new_call(client).await;
    let leaves = VoiceCall {
        staff_uid: Some("somebody else".into()),
        ..exited.clone()
    };
    let left = update(client, leaves, &["staff_uid"])
        .await
        .expect("allowed");
    let deleted = new_call(client).await;
    let gone = delete(client, &deleted.uid).await.expect("allowed");
    let calls = [&kept, &handled, &exited, &left, &deleted, &gone];
    revisions.extend(calls.map(|call| call.revision));
    let purged = new_call(client).await;
    revisions.push(purged.revision);
    revisions
}

async fn purge(client: &mut Client, uid: &str) -> i64 {
    let request = proto::PurgeVoiceCallRequest {
        uid: uid.into(),
        ..Default::default()
    };
    let answer = client.purge_voice_call(request).await;
    answer.expect("it is there").into_inner().revision
}

/// The uids in the copy that an example keeps.
async fn copied(language: &str, file: &str) -> Vec<String> {
    let script = match language {
        "python" => {
            "import sqlite3, sys\nfor row in sqlite3.connect(sys.argv[1]).execute('SELECT uid FROM calls'): print(*row)"
        }
        _ => "import json, sys\nprint(*json.load(open(sys.argv[1]))['calls'], sep='\\n')",
    };
    let output = Command::new(format!("{ROOT}/tests/interop/python/.venv/bin/python"))
        .args(["-c", script, file])
        .output()
        .await
        .expect("installed");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut uids: Vec<_> = text.lines().map(str::to_owned).collect();
    uids.sort_unstable();
    uids
}

async fn a_copy_survives_the_death_of_the_server(language: &str) {
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let name = format!("voicecall-copy-{}-{number}", std::process::id());
    let file: PathBuf = std::env::temp_dir().join(name);
    let file = file.to_str().expect("text");
    let url = Cluster::shared().await.database().await;
    let mut server = Process::start(&[("DATABASE_URL", &url)]);
    let address = server.endpoint.replace("http://", "");
    let first = new_call(&mut server.client()).await;

    let mut consumer = Consumer::start(language, &address, file);
    // The snapshot is not printed: what comes first is the change after it.
    let mut seen = Vec::new();
    let mut expected = Vec::new();
    let mut client = server.client();
    let probe = new_call(&mut client).await;
    let update_probe = |n| VoiceCall {
        duration: Some(n),
        ..probe.clone()
    };
    // Until it watches, changes of the probe go into its snapshot.
    let mut n = 0;
    while seen.is_empty() {
        n += 1;
        let changed = update(&mut client, update_probe(n), &["duration"]).await;
        let revision = changed.expect("allowed").revision;
        let line = timeout(Duration::from_millis(500), consumer.lines.next_line()).await;
        if let Ok(line) = line {
            let line = line.expect("text").expect("it runs");
            let first = line.split(' ').next().unwrap_or_default();
            let first: i64 = first.parse().expect("a revision");
            seen.push(first);
            expected.extend(first..=revision);
        }
    }
    for round in 0..3 {
        let mut client = server.client();
        let revisions = change(&mut client).await;
        let last = *revisions.last().expect("some");
        expected.extend(revisions);
        seen.extend(consumer.until(last).await);
        if round == 1 {
            purge(&mut client, &first.uid).await;
            expected.push(last + 1);
            seen.extend(consumer.until(last + 1).await);
        }
        drop(server);
        server = Process::start(&[("DATABASE_URL", &url), ("VOICECALL_LISTEN", &address)]);
    }
    let last = new_call(&mut server.client()).await.revision;
    expected.push(last);
    seen.extend(consumer.until(last).await);
    assert_eq!(seen, expected, "each change once, in order");

    let request = proto::ListVoiceCallsRequest {
        filter: Some(proto::VoiceCallFilter {
            staff_uids: vec![STAFF.into()],
            ..Default::default()
        }),
        page_size: 1000,
        ..Default::default()
    };
    let list = server.client().list_voice_calls(request).await;
    let calls = list.expect("a list").into_inner().voice_calls;
    let mut uids: Vec<_> = calls.into_iter().map(|call| call.uid).collect();
    uids.sort_unstable();
    assert_eq!(copied(language, file).await, uids);
    std::fs::remove_file(file).expect("it is ours");
}

#[tokio::test]
async fn the_python_consumer_survives_the_death_of_the_server() {
    a_copy_survives_the_death_of_the_server("python").await;
}

#[tokio::test]
async fn the_node_consumer_survives_the_death_of_the_server() {
    a_copy_survives_the_death_of_the_server("node").await;
}

#[tokio::test]
async fn the_examples_create_and_list() {
    let url = Cluster::shared().await.database().await;
    let server = Process::start(&[("DATABASE_URL", &url)]);
    let address = server.endpoint.replace("http://", "");
    for (language, listed) in [("python", 1), ("node", 2)] {
        let output = example(language, "calls", &[&address, STAFF])
            .output()
            .await;
        let output = output.expect("installed");
        assert!(output.status.success(), "{language}");
        let text = String::from_utf8(output.stdout).expect("text");
        let count = text
            .lines()
            .filter(|line| line.ends_with("STATUS_MISSED"))
            .count();
        assert_eq!(count, listed, "{text}");
    }
}
