//! Each command does its work, by flags alone.

use serde_json::{Value, json};
use voicecall::proto::CreateVoiceCallRequest;

use crate::{
    gate::Gate,
    program::{command, run, run_with},
    support::{Server, create, inbound, reference, request_id},
    transfers::EXAMPLE,
};

/// The flags that make the reference's example.
const REFERENCE: [&str; 27] = [
    "create",
    "--json",
    "--uid",
    "d290f1ee-6c54-4b01-90e6-d701748f0851",
    "--created-at",
    "2021-07-20T14:00:00Z",
    "--duration=120",
    "--status",
    "answered-by-staff",
    "--direction",
    "inbound",
    "--staff",
    "d290f1ee-6c54-4b01-90e6-d701748f0851",
    "--client",
    "d290f1ee-6c54-4b01-90e6-d701748f0851",
    "--from",
    "183466347342",
    "--to",
    "183466347342",
    "--recording-url",
    "https://example.com/recording.mp3",
    "--summary",
    "Client called to ask about their account balance",
    "--external-app-url=https://example.com/call-details",
    "--handled-by",
    "d290f1ee-6c54-4b01-90e6-d701748f0851",
    "--handled-at=2021-07-20 14:00:00",
];

fn uid() -> String {
    reference().uid
}

/// The one line of JSON that a command answers.
async fn answer(server: &Server, args: &[&str]) -> Value {
    let lines = run(&server.endpoint, args).await.json();
    assert_eq!(lines.len(), 1, "{args:?}");
    lines[0].clone()
}

#[tokio::test]
async fn the_reference_example_made_by_flags_comes_back_value_for_value() {
    let server = Server::start().await;
    let created = run(&server.endpoint, &REFERENCE).await.ok();
    let updated_at = serde_json::from_str::<Value>(&created).expect("JSON")["updated_at"].clone();
    let example: Value = serde_json::from_str(EXAMPLE).expect("JSON");
    assert_ne!(updated_at, example["updated_at"]);
    let expected = EXAMPLE.replacen(
        r#""updated_at":"2021-07-20T14:00:00.000Z""#,
        &format!(r#""updated_at":{updated_at}"#),
        1,
    ) + "\n";
    assert_eq!(created, expected);
    for args in [["get", "--json", &uid()].as_slice(), &["list", "--json"]] {
        assert_eq!(run(&server.endpoint, args).await.ok(), expected);
    }
}

#[tokio::test]
async fn a_call_lives_its_life_by_commands() {
    let server = Server::start().await;
    let first = answer(&server, &["create", "--direction", "outbound", "--json"]).await;
    assert_eq!(first["status"], "incoming call");
    let uid = first["uid"].as_str().expect("it has one");
    let update = [
        "update",
        uid,
        "--status",
        "missed",
        "--summary",
        "rang\ntwice",
        "--duration",
        "0",
        "--json",
    ];
    let updated = answer(&server, &update).await;
    assert_eq!(
        (
            &updated["status"],
            &updated["call_summary"],
            &updated["duration"]
        ),
        (&json!("missed"), &json!("rang\ntwice"), &json!(0))
    );
    let cleared = answer(
        &server,
        &[
            "update",
            uid,
            "--clear=summary",
            "--clear=duration",
            "--direction=inbound",
            "--json",
        ],
    )
    .await;
    assert_eq!(
        (
            &cleared["status"],
            &cleared["call_summary"],
            &cleared["duration"]
        ),
        (&json!("missed"), &Value::Null, &Value::Null)
    );
    assert_eq!(cleared["direction"], "inbound");
    let handled = answer(
        &server,
        &["handle", uid, "--by", "ann", "--at", "2026-01-01", "--json"],
    )
    .await;
    assert_eq!(handled["handled_by_staff_uid"], "ann");
    assert_eq!(handled["handled_at"], "2026-01-01T00:00:00.000Z");
    let deleted = answer(&server, &["delete", uid, "--expected-revision=4", "--json"]).await;
    assert_ne!(deleted["deleted_at"], Value::Null);
    assert_eq!(run(&server.endpoint, &["list"]).await.ok(), "");
    let again = answer(&server, &["delete", uid, "--allow-missing", "--json"]).await;
    assert_eq!(again, deleted);
    let restored = answer(&server, &["undelete", uid, "--json"]).await;
    assert_eq!(restored["deleted_at"], Value::Null);
    assert_eq!(answer(&server, &["list", "--json"]).await, restored);
}

#[tokio::test]
async fn every_field_can_be_updated_and_cleared() {
    let server = Server::start().await;
    let old = create(&mut server.client(), inbound()).await;
    let mut update: Vec<&str> = vec!["update", &old.uid];
    let fields = REFERENCE[6..].iter().copied();
    update.extend(fields);
    let updated = run(&server.endpoint, &[update.as_slice(), &["--json"]].concat()).await;
    let updated = updated.json().remove(0);
    let example: Value = serde_json::from_str(EXAMPLE).expect("JSON");
    let clearable = [
        "duration",
        "staff",
        "client",
        "from",
        "to",
        "recording-url",
        "summary",
        "external-app-url",
        "handled-by",
        "handled-at",
    ];
    let mut clear: Vec<&str> = vec!["update", &old.uid, "--json"];
    for field in clearable {
        clear.extend(["--clear", field]);
    }
    let cleared = answer(&server, &clear).await;
    let mut changed = 0;
    for (key, value) in example.as_object().expect("an object") {
        if ["uid", "created_at", "updated_at", "deleted_at"].contains(&key.as_str()) {
            continue;
        }
        assert_eq!(updated[key], *value, "{key}");
        if ["status", "direction"].contains(&key.as_str()) {
            assert_eq!(cleared[key], *value, "{key}");
        } else {
            assert_eq!(cleared[key], Value::Null, "{key}");
            changed += 1;
        }
    }
    assert_eq!(changed, clearable.len());
}

#[tokio::test]
async fn validate_only_writes_nothing_and_upsert_creates() {
    let server = Server::start().await;
    let uid = uid();
    let dry = [
        "create",
        "--direction",
        "inbound",
        "--uid",
        &uid,
        "--validate-only",
        "--json",
    ];
    assert_eq!(answer(&server, &dry).await["uid"], json!(uid));
    assert_eq!(run(&server.endpoint, &["get", &uid]).await.code, Some(3));
    let upsert = [
        "update",
        &uid,
        "--allow-missing",
        "--direction",
        "inbound",
        "--json",
    ];
    assert_eq!(answer(&server, &upsert).await["uid"], json!(uid));
    let dry = [
        "update",
        &uid,
        "--status",
        "missed",
        "--validate-only",
        "--json",
    ];
    assert_eq!(answer(&server, &dry).await["status"], "missed");
    assert_eq!(
        answer(&server, &["get", &uid, "--json"]).await["status"],
        "incoming call"
    );
}

#[tokio::test]
async fn the_same_command_with_its_request_id_is_done_once() {
    let server = Server::start().await;
    let id = request_id();
    let args = [
        "create",
        "--direction",
        "inbound",
        "--request-id",
        &id,
        "--json",
    ];
    let first = answer(&server, &args).await;
    assert_eq!(answer(&server, &args).await, first);
    assert_eq!(
        run(&server.endpoint, &["list"]).await.ok().lines().count(),
        1
    );
}

#[tokio::test]
async fn get_shows_several_calls_and_names_those_that_do_not_exist() {
    let server = Server::start().await;
    let mut client = server.client();
    let (a, b) = (
        create(&mut client, inbound()).await.uid,
        create(&mut client, inbound()).await.uid,
    );
    let missing = uid();
    let ran = run(&server.endpoint, &["get", &b, &missing, &a, "--json"]).await;
    let uids: Vec<_> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["uid"].clone())
        .collect();
    assert_eq!(uids, [json!(b), json!(a)]);
    assert_eq!(
        ran.stderr,
        format!("voicecall: there is no call {missing}\n")
    );
    assert_eq!(ran.code, Some(3));
}

#[tokio::test]
async fn in_a_pipe_get_writes_names_and_values_with_the_revision() {
    let server = Server::start().await;
    create(&mut server.client(), reference()).await;
    let text = run(&server.endpoint, &["get", &uid()]).await.ok();
    let mut names = Vec::new();
    for line in text.lines() {
        let (name, value) = line.split_once('\t').expect("a tab");
        names.push(name);
        match name {
            "deleted_at" => assert_eq!(value, ""),
            "revision" => assert_eq!(value, "1"),
            "status" => assert_eq!(value, "answered by staff"),
            "handled_at" => assert_eq!(value, "2021-07-20T14:00:00.000Z"),
            _ => assert_ne!(value, "", "{name}"),
        }
    }
    assert_eq!(names.len(), 17);
}

#[tokio::test]
async fn the_token_comes_from_a_variable_or_a_file_and_the_file_wins() {
    let server = Server::start().await;
    let gate = Gate::start(&server.endpoint, []).await;
    let file = std::env::temp_dir().join(format!("voicecall-token-{}", std::process::id()));
    std::fs::write(&file, "from-file\n").expect("it can be written");
    let path = file.to_str().expect("text");
    let by_variable = [("VOICECALL_TOKEN", "from-variable")];
    let both = [
        ("VOICECALL_TOKEN", "from-variable"),
        ("VOICECALL_TOKEN_FILE", path),
    ];
    run_with(&gate.endpoint, &["list"], &by_variable).await.ok();
    run_with(&gate.endpoint, &["list"], &both).await.ok();
    run_with(&gate.endpoint, &["list"], &[("VOICECALL_TOKEN", "")])
        .await
        .ok();
    std::fs::remove_file(&file).expect("it is there");
    let seen = gate.seen();
    let tokens: Vec<_> = seen.iter().map(|one| one.header("authorization")).collect();
    assert_eq!(
        tokens,
        [Some("Bearer from-variable"), Some("Bearer from-file"), None]
    );
    let ran = run_with(&gate.endpoint, &["list"], &both[1..]).await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.starts_with(&format!(
            "voicecall: cannot read the token from the file {path}: "
        )),
        "{ran:?}"
    );
}

#[tokio::test]
async fn writes_of_commands_carry_request_ids() {
    let server = Server::start().await;
    let gate = Gate::start(&server.endpoint, []).await;
    run(&gate.endpoint, &["create", "--direction", "inbound"])
        .await
        .ok();
    let sent: CreateVoiceCallRequest = gate.seen()[0].message();
    uuid::Uuid::parse_str(&sent.request_id).expect("a UUID");
}

#[tokio::test]
async fn every_shell_gets_completions_that_know_commands_and_words() {
    for shell in ["bash", "zsh", "fish"] {
        let output = command("http://nowhere", &["completions", shell])
            .output()
            .await;
        let script = String::from_utf8(output.expect("it runs").stdout).expect("text");
        for word in [
            "undelete",
            "not-handled",
            "answered-by-vonage",
            "recording-url",
            "replace-if-newer",
            "export",
            "time-zone",
            "token",
        ] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}
