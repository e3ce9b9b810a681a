//! What the tests of imports and exports share.

use std::path::PathBuf;

use prost_types::Timestamp;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use voicecall::{
    client::{Client, Settings},
    proto::{GetVoiceCallStatsRequest, VoiceCall, VoiceCallDirection, VoiceCallStatus},
};

use crate::{
    program::{Ran, command},
    support::{Server, request_id},
};

/// The reference's own example, on one line.
pub(crate) const EXAMPLE: &str = include_str!("../../src/cli/json/example.json").trim_ascii();

/// A file that goes with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("voicecall-{}", request_id()));
        std::fs::write(&path, content).expect("it can be written");
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }

    pub(crate) fn content(&self) -> String {
        std::fs::read_to_string(&self.0).expect("it is there")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs the program with this as its standard input.
pub(crate) async fn run_with_input(endpoint: &str, args: &[&str], input: &str) -> Ran {
    let child = command(endpoint, args)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut child = child.expect("the program is built");
    let mut stdin = child.stdin.take().expect("piped");
    let write = async {
        stdin.write_all(input.as_bytes()).await.expect("it reads");
        drop(stdin);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    Ran::new(output.expect("it ends"))
}

/// What an import says at its end.
pub(crate) fn summary(
    created: u64,
    replaced: u64,
    unchanged: u64,
    skipped: u64,
    refused: u64,
) -> String {
    format!(
        "{created} created, {replaced} replaced, {unchanged} unchanged, {skipped} skipped, \
         {refused} refused\n"
    )
}

pub(crate) fn uid(n: u128) -> String {
    uuid::Builder::from_random_bytes((n + 1).to_be_bytes())
        .into_uuid()
        .to_string()
}

/// The `n`th of a long row of calls, a minute apart.
pub(crate) fn call(n: u128) -> VoiceCall {
    let time = Some(Timestamp {
        seconds: 1_600_000_000 + 60 * i64::try_from(n).expect("small"),
        nanos: 0,
    });
    VoiceCall {
        uid: uid(n),
        status: VoiceCallStatus::Missed.into(),
        direction: VoiceCallDirection::Inbound.into(),
        created_at: time,
        updated_at: time,
        call_summary: Some(format!("call {n}")),
        ..VoiceCall::default()
    }
}

/// The calls as JSON Lines, with the keys of the voice call object in their order.
pub(crate) fn lines(calls: impl Iterator<Item = VoiceCall>) -> String {
    calls.map(|call| line(&call)).collect()
}

fn line(call: &VoiceCall) -> String {
    let time = |time: Option<Timestamp>| {
        let time = time.map(|time| jiff::Timestamp::from_second(time.seconds).expect("a time"));
        json!(time.map(|time| time.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()))
    };
    let status = match call.status() {
        VoiceCallStatus::AnsweredByStaff => "answered by staff",
        VoiceCallStatus::Missed => "missed",
        other => panic!("{other:?}"),
    };
    let direction = match call.direction() {
        VoiceCallDirection::Inbound => json!("inbound"),
        VoiceCallDirection::Outbound => json!("outbound"),
        VoiceCallDirection::Unspecified => Value::Null,
    };
    let fields = [
        ("uid", json!(call.uid)),
        ("created_at", time(call.created_at)),
        ("updated_at", time(call.updated_at)),
        ("duration", json!(call.duration)),
        ("status", json!(status)),
        ("direction", direction),
        ("staff_uid", json!(call.staff_uid)),
        ("client_uid", json!(call.client_uid)),
        ("from_number", json!(call.from_number)),
        ("to_number", json!(call.to_number)),
        ("recording_url", json!(call.recording_url)),
        ("call_summary", json!(call.call_summary)),
        ("external_app_url", json!(call.external_app_url)),
        ("handled_by_staff_uid", json!(call.handled_by_staff_uid)),
        ("handled_at", time(call.handled_at)),
        ("deleted_at", time(call.deleted_at)),
    ];
    let fields = fields.map(|(name, value)| format!("\"{name}\":{value}"));
    format!("{{{}}}\n", fields.join(","))
}

pub(crate) fn client(server: &Server) -> Client {
    Client::new(&Settings::new(&server.endpoint)).expect("good settings")
}

/// How many calls there are.
pub(crate) async fn count(client: &Client) -> i64 {
    let stats = client.stats_page(GetVoiceCallStatsRequest::default()).await;
    stats.map(|stats| stats.total_count).unwrap_or_default()
}
