//! The examples in other languages, run as their README says.

use std::{cell::Cell, collections::BTreeMap, process::Stdio, time::Duration};

use futures_util::TryStreamExt;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use voicecall::{
    client::{Client, Settings},
    proto::{
        CreateVoiceCallRequest, GetVoiceCallRequest, ListVoiceCallsRequest, PurgeVoiceCallRequest,
        VoiceCall, VoiceCallStatus,
    },
};

use crate::support::{
    dir::Dir,
    eventually, inbound,
    server::Restartable,
    tokens::{new_key, serve_with_key, token},
    writes::{Write, create_of, delete_of, handle_of, undelete_of, update_of},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Longer than anything takes that is not broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Examples in a language.
#[derive(Debug, Clone, Copy)]
enum Language {
    Python,
    Node,
}

impl Language {
    /// The example with these arguments.
    fn example(self, name: &str, args: &[&str]) -> Command {
        let (program, script) = match self {
            Self::Python => (
                format!("{ROOT}/tests/interop/python/.venv/bin/python"),
                format!("{ROOT}/examples/python/{name}.py"),
            ),
            Self::Node => ("node".into(), format!("{ROOT}/examples/node/{name}.js")),
        };
        let mut command = Command::new(program);
        command
            .arg(script)
            .args(args)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What an example that ends writes.
    async fn run(self, name: &str, args: &[&str]) -> String {
        let output = self.example(name, args).output().await;
        let output = output.expect("`scripts/install interop` has been run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?} {name}: {stderr}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The calls of the copy that `watch` keeps in a file, by uid.
    async fn copy(self, file: &str) -> BTreeMap<String, Value> {
        let json = match self {
            Self::Python => {
                const DUMP: &str = "import json, sqlite3, sys
calls = sqlite3.connect(sys.argv[1]).execute('SELECT uid, call FROM calls')
print(json.dumps({'calls': {uid: json.loads(call) for uid, call in calls}}))";
                let mut command = Command::new("python3");
                let output = command.args(["-c", DUMP]).arg(file).output().await;
                output.expect("there is Python").stdout
            }
            Self::Node => std::fs::read(file).expect("it has been written"),
        };
        let mut json: Value = serde_json::from_slice(&json).expect("JSON");
        serde_json::from_value(json["calls"].take()).expect("calls by uid")
    }
}

/// A running consumer.
struct Consumer {
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Consumer {
    fn start(language: Language, target: &str, file: &str) -> Self {
        let mut command = language.example("watch", &[target, file]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("`scripts/install interop` has been run");
        let stdout = child.stdout.take().expect("piped");
        Self {
            lines: BufReader::new(stdout).lines(),
            child,
        }
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("it says something").expect("text");
        line.expect("the consumer goes on")
    }

    /// The revision of the change that it tells of next.
    async fn change(&mut self) -> i64 {
        let line = self.line().await;
        let revision = line.split(' ').next().and_then(|word| word.parse().ok());
        revision.unwrap_or_else(|| panic!("no change: {line}"))
    }
}

fn target(service: &Restartable) -> String {
    service.endpoint().replace("http://", "")
}

async fn records_and_lists(language: Language) {
    let service = Restartable::start().await;
    let target = target(&service);
    let created = language.run("create", &[&target, "+14155550148"]).await;
    let created: Value = serde_json::from_str(&created).expect("JSON");
    let uid = created["uid"].as_str().expect("it has one").to_owned();
    let request = GetVoiceCallRequest {
        uid: uid.clone(),
        min_revision: 0,
    };
    let call = service.client().get(request).await.expect("it is there");
    assert_eq!(call.from_number.as_deref(), Some("+14155550148"));
    assert_eq!(language.run("list", &[&target]).await, "");
    send(&service, status_of(&uid, VoiceCallStatus::Missed)).await;
    let listed = language.run("list", &[&target]).await;
    assert_eq!(listed.lines().count(), 1);
    assert!(listed.starts_with(&uid) && listed.ends_with(" +14155550148\n"));
}

#[tokio::test]
async fn the_python_examples_record_and_list() {
    records_and_lists(Language::Python).await;
}

#[tokio::test]
async fn the_node_examples_record_and_list() {
    records_and_lists(Language::Node).await;
}

fn status_of(uid: &str, status: VoiceCallStatus) -> Write {
    update_of(VoiceCall {
        uid: uid.to_owned(),
        status: status.into(),
        ..VoiceCall::default()
    })
}

fn summary_of(uid: &str, summary: &str) -> Write {
    update_of(VoiceCall {
        uid: uid.to_owned(),
        call_summary: Some(summary.to_owned()),
        ..VoiceCall::default()
    })
}

/// Sends a write until it is answered, whatever happens to the service.
async fn send(service: &Restartable, write: Write) -> VoiceCall {
    send_to(service.endpoint(), write).await
}

async fn send_to(endpoint: String, write: Write) -> VoiceCall {
    let mut answer = None;
    eventually("the write is answered", async || {
        let mut client = crate::support::server::client(&endpoint);
        answer = write.clone().send(&mut client).await.ok();
        answer.is_some()
    })
    .await;
    answer.expect("it was answered").remove(0)
}

/// Changes calls of every kind, a revision each, until it is told to stop.
async fn change_calls(endpoint: String, stop: &Cell<bool>) {
    while !stop.get() {
        let uid = send_to(endpoint.clone(), create_of(inbound())).await.uid;
        for write in [
            status_of(&uid, VoiceCallStatus::Missed),
            handle_of(&uid, "ann"),
            delete_of(&uid, false),
            undelete_of(&uid),
            summary_of(&uid, "rang\ntwice"),
        ] {
            send_to(endpoint.clone(), write).await;
        }
        let other = send_to(endpoint.clone(), create_of(inbound())).await.uid;
        send_to(endpoint.clone(), delete_of(&other, false)).await;
    }
}

/// The calls in the table that are not deleted, by uid.
async fn table(client: &Client) -> BTreeMap<String, VoiceCall> {
    let calls = client.list(ListVoiceCallsRequest::default());
    let by_uid = calls.map_ok(|call| (call.uid.clone(), call));
    by_uid.try_collect().await.expect("a list")
}

async fn assert_copied(language: Language, file: &str, service: &Restartable) {
    let copy = language.copy(file).await;
    let table = table(&service.client()).await;
    assert!(copy.keys().eq(table.keys()), "{copy:#?} {table:#?}");
    for (uid, call) in &table {
        let copied = &copy[uid];
        assert_eq!(copied["revision"], call.revision.to_string());
        let summary = call.call_summary.as_deref();
        assert_eq!(copied["call_summary"].as_str(), summary);
    }
}

/// A copy that is kept through kills of the service, and of the consumer, is the
/// table, and each change is told once.
async fn keeps_a_copy(language: Language) {
    let mut service = Restartable::start().await;
    let target = target(&service);
    let dir = Dir::new("examples");
    let file = dir.path("copy");
    for _ in 0..2 {
        send(&service, create_of(inbound())).await;
    }
    let mut consumer = Consumer::start(language, &target, &file);
    assert_eq!(consumer.line().await, "snapshot at 2");

    let mut last = 2;
    let stop = Cell::new(false);
    let follow_through_kills = async {
        for _ in 0..2 {
            for _ in 0..30 {
                last += 1;
                assert_eq!(consumer.change().await, last);
            }
            service.kill();
            service.run();
        }
        stop.set(true);
    };
    let changing = change_calls(format!("http://{target}"), &stop);
    tokio::join!(changing, follow_through_kills);
    let kept = send(&service, create_of(inbound())).await;
    let purged = send(&service, create_of(inbound())).await;
    while last < purged.revision {
        last += 1;
        assert_eq!(consumer.change().await, last);
    }
    let purge = PurgeVoiceCallRequest {
        uid: purged.uid.clone(),
        ..Default::default()
    };
    let revision = service.client().purge(purge).await.expect("it is there");
    let line = consumer.line().await;
    assert_eq!(line, format!("{revision} PURGED {}", purged.uid));

    // Killed, it goes on where it was.
    consumer.child.kill().await.expect("it runs");
    let update = summary_of(&kept.uid, "called back");
    let updated = send(&service, update).await;
    let mut consumer = Consumer::start(language, &target, &file);
    let line = consumer.line().await;
    assert_eq!(line, format!("{} UPDATED {}", updated.revision, kept.uid));

    assert_copied(language, &file, &service).await;
}

#[tokio::test]
async fn the_python_consumer_keeps_a_copy_through_kills() {
    keeps_a_copy(Language::Python).await;
}

#[tokio::test]
async fn the_node_consumer_keeps_a_copy_through_kills() {
    keeps_a_copy(Language::Node).await;
}

/// The place in another database's log is of no use, and what was copied from it
/// neither.
async fn starts_over(language: Language) {
    let dir = Dir::new("examples");
    let file = dir.path("copy");
    for calls in [3, 2] {
        let service = Restartable::start().await;
        for _ in 0..calls {
            send(&service, create_of(inbound())).await;
        }
        let mut consumer = Consumer::start(language, &target(&service), &file);
        let line = consumer.line().await;
        assert_eq!(line, format!("snapshot at {calls}"));
        assert_copied(language, &file, &service).await;
        consumer.child.kill().await.expect("it runs");
    }
}

#[tokio::test]
async fn the_python_consumer_starts_over_on_another_database() {
    starts_over(Language::Python).await;
}

#[tokio::test]
async fn the_node_consumer_starts_over_on_another_database() {
    starts_over(Language::Node).await;
}

/// When its token expires, the consumer goes on with the next one; it stops when the token is not
/// valid.
async fn goes_on_with_another_token(language: Language) {
    let (dir, key) = (Dir::new("examples"), new_key());
    let issue = |seconds| token(&key, "test", Duration::from_secs(seconds));
    let service = serve_with_key(&key, &dir).await;
    let client = Client::new(&Settings {
        token: Some(issue(600).into()),
        ..Settings::new(&service.endpoint)
    });
    let client = client.expect("good settings");
    let create = async || {
        let request = CreateVoiceCallRequest {
            voice_call: Some(inbound()),
            ..Default::default()
        };
        client
            .create(request)
            .await
            .expect("it is created")
            .revision
    };
    let target = service.endpoint.replace("http://", "");
    let start = || {
        let mut command = language.example("watch", &[&target, &dir.path("copy")]);
        command.env("VOICECALL_TOKEN_FILE", dir.path("token"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it is installed");
        let errors = BufReader::new(child.stderr.take().expect("piped")).lines();
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        (Consumer { lines, child }, errors)
    };

    dir.write("token", &issue(2));
    let (mut consumer, mut errors) = start();
    let expired = Cell::new(0);
    let renew = async {
        while let Some(error) = errors.next_line().await.expect("text") {
            assert_eq!(error, "UNAUTHENTICATED: TOKEN_EXPIRED");
            dir.write("token", &issue(2));
            expired.set(expired.get() + 1);
        }
    };
    let follow = async {
        assert_eq!(consumer.line().await, "snapshot at 0");
        while expired.get() < 3 {
            let revision = create().await;
            assert_eq!(consumer.change().await, revision);
        }
    };
    tokio::select! {
        () = renew => panic!("the consumer has ended"),
        () = follow => {}
    }
    consumer.child.kill().await.expect("it runs");

    dir.write("token", "no.valid.token");
    let (mut consumer, _errors) = start();
    let ended = timeout(PATIENCE, consumer.child.wait())
        .await
        .expect("it ends");
    assert!(!ended.expect("it is our child").success());
}

#[tokio::test]
async fn the_python_consumer_goes_on_with_another_token() {
    goes_on_with_another_token(Language::Python).await;
}

#[tokio::test]
async fn the_node_consumer_goes_on_with_another_token() {
    goes_on_with_another_token(Language::Node).await;
}
