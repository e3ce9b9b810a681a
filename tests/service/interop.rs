//! Clients that are not ours: the official Python and Node clients, and buf,
//! against a server process.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{
    postgres::Cluster,
    server::{Process, Server, program},
};

const INTEROP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");
const BUF: &str = "node/node_modules/.bin/buf";

/// Runs a program of `tests/interop`, which must succeed.
async fn run(mut command: Command) -> Output {
    let text = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .unwrap_or_else(|error| panic!("{text}: {error}; run `scripts/install interop` first"));
    assert!(
        output.status.success(),
        "{text}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

async fn server() -> (Process, String) {
    let url = Cluster::shared().await.database().await;
    let server = Process::start(&[("DATABASE_URL", &url)]);
    let address = server.endpoint.replace("http://", "");
    (server, address)
}

#[tokio::test]
async fn the_official_python_client_gets_along_through_reflection() {
    let (_server, address) = server().await;
    let mut command = Command::new(format!("{INTEROP}/python/.venv/bin/python"));
    command
        .arg(format!("{INTEROP}/python/test_interop.py"))
        .arg(address);
    run(command).await;
}

/// Runs a program of the official Python client that starts servers of its own.
async fn python_with_servers(script: &str) {
    let url = Cluster::shared().await.database().await;
    let mut command = Command::new(format!("{INTEROP}/python/.venv/bin/python"));
    command
        .arg(format!("{INTEROP}/python/{script}"))
        .arg(program())
        .arg(url);
    run(command).await;
}

#[tokio::test]
async fn every_credential_is_taken_or_refused_as_documented_by_every_rpc() {
    python_with_servers("test_credentials.py").await;
}

#[tokio::test]
async fn every_rpc_shows_every_caller_what_is_theirs_and_nothing_else() {
    python_with_servers("test_authorisation.py").await;
}

#[tokio::test]
async fn the_official_node_client_gets_along() {
    let (_server, address) = server().await;
    let mut command = Command::new("node");
    command
        .args(["--test", "interop.test.js"])
        .current_dir(format!("{INTEROP}/node"))
        .env("VOICECALL_ENDPOINT", address);
    run(command).await;
}

#[tokio::test]
async fn the_proto_files_are_lint_clean() {
    let mut command = Command::new(format!("{INTEROP}/{BUF}"));
    command.arg("lint").current_dir(env!("CARGO_MANIFEST_DIR"));
    run(command).await;
}

/// Calls a method by buf, as one would by grpcurl.
async fn curl(server: &Server, method: &str, request: &Value) -> Value {
    let mut command = Command::new(format!("{INTEROP}/{BUF}"));
    command
        .args([
            "curl",
            "--protocol",
            "grpc",
            "--http2-prior-knowledge",
            "-d",
        ])
        .arg(request.to_string())
        .arg(format!(
            "{}/voicecall.v1.VoiceCallService/{method}",
            server.endpoint
        ))
        .current_dir("/");
    serde_json::from_slice(&run(command).await.stdout).expect("the answer is JSON")
}

#[tokio::test]
async fn the_reference_example_survives_a_conversation_by_reflection() {
    let server = Server::start().await;
    let uid = "d290f1ee-6c54-4b01-90e6-d701748f0851";
    let example = json!({
        "uid": uid,
        "duration": 120,
        "createdAt": "2021-07-20T14:00:00Z",
        "status": "VOICE_CALL_STATUS_ANSWERED_BY_STAFF",
        "direction": "VOICE_CALL_DIRECTION_INBOUND",
        "staffUid": uid,
        "clientUid": uid,
        "fromNumber": "183466347342",
        "toNumber": "183466347342",
        "recordingUrl": "https://example.com/recording.mp3",
        "callSummary": "Client called to ask about their account balance",
        "externalAppUrl": "https://example.com/call-details",
        "handledByStaffUid": uid,
        "handledAt": "2021-07-20T14:00:00Z",
    });
    curl(&server, "CreateVoiceCall", &json!({ "voiceCall": example })).await;
    let mut read = curl(&server, "GetVoiceCall", &json!({ "uid": uid })).await;
    let call = read["voiceCall"].as_object_mut().expect("a call");
    assert_eq!(call.remove("revision"), Some("1".into()));
    assert!(call.remove("updatedAt").is_some());
    assert_eq!(read["voiceCall"], example);
}
