//! Imports and exports, by the library and by command.

use std::{
    collections::{BTreeMap, HashSet},
    io::Read,
    path::PathBuf,
    pin::pin,
};

use futures_util::{TryStreamExt, stream};
use prost_types::Timestamp;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use voicecall::{
    api::proto::{
        ExportVoiceCallsRequest, GetVoiceCallStatsRequest, ImportConflictPolicy, ImportRecord,
        ImportSettings, ListVoiceCallsRequest, VoiceCall, VoiceCallDirection, VoiceCallStatus,
        import_voice_calls_response::Result as Answer,
    },
    cli::json,
    client::{Client, Code, Settings},
};

use crate::{
    json::EXAMPLE,
    program::{Ran, command, run, run_in_terminal},
    support::{Server, eventually, request_id, secured::free_port, server::Restartable},
};

/// A file that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("voicecall-{}", request_id()));
        std::fs::write(&path, content).expect("it can be written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }

    fn content(&self) -> String {
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
async fn run_with_input(endpoint: &str, args: &[&str], input: &str) -> Ran {
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

fn summary(created: u64, replaced: u64, unchanged: u64, skipped: u64, refused: u64) -> String {
    format!(
        "{created} created, {replaced} replaced, {unchanged} unchanged, {skipped} skipped, \
         {refused} refused\n"
    )
}

fn uid(n: u128) -> String {
    uuid::Builder::from_random_bytes((n + 1).to_be_bytes())
        .into_uuid()
        .to_string()
}

/// The `n`th of a long row of calls, a minute apart.
fn call(n: u128) -> VoiceCall {
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

fn lines(calls: impl Iterator<Item = VoiceCall>) -> String {
    let mut text = Vec::new();
    for call in calls {
        json::write(&call, &mut text).expect("it can be written");
        text.push(b'\n');
    }
    String::from_utf8(text).expect("text")
}

async fn head(client: &Client) -> i64 {
    let page = client.list_page(ListVoiceCallsRequest::default()).await;
    page.expect("a page").revision
}

async fn count(client: &Client) -> i64 {
    let stats = client.stats_page(GetVoiceCallStatsRequest::default()).await;
    stats.map(|stats| stats.total_count).unwrap_or_default()
}

#[tokio::test]
async fn the_reference_example_goes_in_and_out_value_for_value() {
    let server = Server::start().await;
    let file = Scratch::new(&format!("{EXAMPLE}\n"));
    let imported = run(&server.endpoint, &["import", file.path()]).await.ok();
    assert_eq!(imported, summary(1, 0, 0, 0, 0));
    let exported = run(&server.endpoint, &["export"]).await.ok();
    assert_eq!(exported, format!("{EXAMPLE}\n"));
    let array = run(&server.endpoint, &["export", "--array"]).await.ok();
    assert_eq!(array, format!("[\n{EXAMPLE}\n]\n"));
    // Laid out for people, and from standard input.
    let value: Value = serde_json::from_str(&array).expect("an array");
    let pretty = serde_json::to_string_pretty(&value).expect("JSON");
    let imported = run_with_input(&server.endpoint, &["import", "--json"], &pretty).await;
    let expected = json!({"created": 0, "replaced": 0, "unchanged": 1, "skipped": 0, "refused": 0});
    assert_eq!(imported.json(), [expected]);
}

#[tokio::test]
async fn nothing_comes_of_nothing() {
    let server = Server::start().await;
    for input in ["", "\n\n", "[]", "[\n]\n"] {
        let imported = run_with_input(&server.endpoint, &["import", "-"], input).await;
        assert_eq!(imported.ok(), summary(0, 0, 0, 0, 0));
    }
    assert_eq!(run(&server.endpoint, &["export"]).await.ok(), "");
    let array = run(&server.endpoint, &["export", "--array"]).await.ok();
    assert_eq!(array, "[\n]\n");
}

#[tokio::test]
async fn what_exists_is_treated_as_the_flag_says() {
    let server = Server::start().await;
    let older = VoiceCall {
        call_summary: Some("older".into()),
        updated_at: call(0).created_at,
        ..call(1)
    };
    let newer = VoiceCall {
        call_summary: Some("newer".into()),
        updated_at: call(2).created_at,
        ..call(1)
    };
    let cases = [
        (&[][..], call(1), summary(1, 0, 0, 0, 0), "call 1"),
        (&[], older.clone(), summary(0, 0, 0, 1, 0), "call 1"),
        (
            &["--conflict", "skip"],
            newer.clone(),
            summary(0, 0, 0, 1, 0),
            "call 1",
        ),
        (
            &["--conflict", "replace"],
            older,
            summary(0, 1, 0, 0, 0),
            "older",
        ),
        (
            &["--conflict", "replace-if-newer"],
            newer,
            summary(0, 1, 0, 0, 0),
            "newer",
        ),
    ];
    for (flags, record, expected, kept) in cases {
        let args = [&["import"], flags].concat();
        let input = lines([record].into_iter());
        let imported = run_with_input(&server.endpoint, &args, &input).await;
        assert_eq!(imported.ok(), expected);
        let exported = run(&server.endpoint, &["export"]).await.json();
        assert_eq!(exported[0]["call_summary"], kept);
    }
}

#[tokio::test]
async fn bad_lines_are_named_and_stop_no_good_ones() {
    let server = Server::start().await;
    let good = |n| lines([call(n)].into_iter());
    let no_direction = VoiceCall {
        direction: 0,
        recording_url: Some("recording.mp3".into()),
        ..call(7)
    };
    let input = [
        &good(0),
        "{\"uid\": 7, \"colour\": \"red\"}\n",
        "\n",
        &lines([no_direction].into_iter()),
        "{\"uid\": \n",
        &good(1),
    ]
    .concat();
    let ran = run_with_input(&server.endpoint, &["import"], &input).await;
    assert_eq!((ran.stdout, ran.code), (summary(2, 0, 0, 0, 3), Some(4)));
    assert_eq!(
        ran.stderr.lines().collect::<Vec<_>>(),
        [
            "voicecall: line 2: uid must be a string or null; colour is no key of a call",
            "voicecall: line 4: direction is required; \
             recording_url must be an absolute http or https URL",
            "voicecall: line 5: not a JSON object: EOF while parsing a value at column 7",
            "voicecall: 3 records are refused",
        ]
    );
    assert_eq!(count(&client(&server)).await, 2);
    // In an array too, up to where it is none any more.
    let array = format!("[{},\n{{}}x, {}", good(2), good(3));
    let ran = run_with_input(&server.endpoint, &["import"], &array).await;
    assert_eq!((ran.stdout, ran.code), (summary(1, 0, 0, 0, 2), Some(4)));
    assert_eq!(
        ran.stderr.lines().collect::<Vec<_>>(),
        [
            "voicecall: line 3: not a JSON object: trailing characters at column 3",
            "voicecall: line 3: the array is not closed",
            "voicecall: 2 records are refused",
        ]
    );
    let ran = run_with_input(&server.endpoint, &["import"], "[]\n{}\n{}").await;
    assert_eq!((ran.stdout, ran.code), (summary(0, 0, 0, 0, 1), Some(4)));
    assert!(
        ran.stderr
            .starts_with("voicecall: line 2: something follows the array\n")
    );
}

#[tokio::test]
async fn the_first_thousand_bad_lines_are_named_and_the_others_counted() {
    let server = Server::start().await;
    let ran = run_with_input(&server.endpoint, &["import"], &"{}x\n".repeat(1234)).await;
    assert_eq!(ran.stdout, summary(0, 0, 0, 0, 1234));
    assert_eq!(ran.code, Some(4));
    let told: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(told.len(), 1002);
    assert!(
        told[999].starts_with("voicecall: line 1000: "),
        "{}",
        told[999]
    );
    assert_eq!(told[1000], "voicecall: 234 more");
}

#[tokio::test]
async fn what_cannot_be_read_or_reached_is_no_import() {
    let server = Server::start().await;
    let ran = run(&server.endpoint, &["import", "/nowhere/calls.jsonl"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .starts_with("voicecall: cannot read /nowhere/calls.jsonl: ")
    );
    let file = Scratch::new(EXAMPLE);
    let away = format!("http://127.0.0.1:{}", free_port());
    let ran = run(&away, &["import", "--timeout=0.5", file.path()]).await;
    assert_eq!((ran.stdout, ran.code), (summary(0, 0, 0, 0, 0), Some(5)));
}

fn client(server: &Server) -> Client {
    Client::new(&Settings::new(&server.endpoint)).expect("good settings")
}

/// The calls of the table, as they would be written to a file.
async fn table(client: &Client) -> BTreeMap<String, VoiceCall> {
    let calls = client.export(ExportVoiceCallsRequest::default());
    let by_uid = calls.map_ok(|call| {
        (
            call.uid.clone(),
            VoiceCall {
                revision: 0,
                ..call
            },
        )
    });
    by_uid.try_collect().await.expect("an export")
}

#[tokio::test]
async fn an_import_goes_on_through_kills_and_answers_each_record_once() {
    const CALLS: u128 = 6000;
    let mut service = Restartable::start().await;
    let client = service
        .client()
        .with_deadline(std::time::Duration::from_secs(60));
    // Each call comes twice, and the second record is not newer: it must be the
    // last one that is written, also when both are sent again.
    let last = |n: u128| VoiceCall {
        duration: Some(7),
        ..call(n)
    };
    let records = (0..CALLS).flat_map(|n| [call(n), last(n)]);
    let records = records.enumerate().map(|(sequence, call)| ImportRecord {
        sequence: i64::try_from(sequence).expect("small") * 10,
        voice_call: Some(call),
    });
    let settings = ImportSettings {
        conflict_policy: ImportConflictPolicy::Replace.into(),
    };
    let mut answers = pin!(client.import(settings, stream::iter(records)));
    let mut seen = HashSet::new();
    while let Some(answer) = answers.try_next().await.expect("it goes on") {
        assert!(
            matches!(answer.result, Some(Answer::Success(_))),
            "{answer:?}"
        );
        assert!(seen.insert(answer.sequence), "{} twice", answer.sequence);
        if [1, 1500, 7001].contains(&seen.len()) {
            service.kill();
            service.run();
        }
    }
    let all: HashSet<_> = (0..2 * i64::try_from(CALLS).expect("small"))
        .map(|n| n * 10)
        .collect();
    assert_eq!(seen, all);
    let table = table(&client).await;
    assert_eq!(table.len() as u128, CALLS);
    for n in 0..CALLS {
        assert_eq!(table[&uid(n)], last(n));
    }
}

#[tokio::test]
async fn an_import_that_is_refused_for_good_ends_with_the_reason() {
    let server = Server::start().await;
    let settings = ImportSettings {
        conflict_policy: 99,
    };
    let record = ImportRecord {
        sequence: 1,
        voice_call: Some(call(1)),
    };
    let client = client(&server);
    let answers = client.import(settings, stream::iter([record]));
    let error = answers.try_collect::<Vec<_>>().await.expect_err("refused");
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(
        error.details.violations[0].field,
        "settings.conflict_policy"
    );
}

#[tokio::test]
async fn a_killed_import_is_started_again_and_nothing_is_twice() {
    const CALLS: u128 = 20_000;
    let server = Server::start().await;
    let client = client(&server);
    let file = Scratch::new(&lines((0..CALLS).map(call)));
    let mut import = command(&server.endpoint, &["import", file.path()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program is built");
    eventually("some calls are in", async || count(&client).await > 0).await;
    import.kill().await.expect("it runs, or has ended");
    let ran = run(&server.endpoint, &["import", "--json", file.path()]).await;
    let summary = ran.json().remove(0);
    assert_eq!(summary["refused"], 0);
    let sum = summary["created"]
        .as_u64()
        .zip(summary["unchanged"].as_u64());
    assert_eq!(sum.map(|(a, b)| u128::from(a + b)), Some(CALLS));
    // A change for each call, and no other.
    assert_eq!(u128::try_from(head(&client).await), Ok(CALLS));
    let exported = run(&server.endpoint, &["export"]).await.ok();
    assert!(exported == file.content(), "the export is not the import");
}

#[tokio::test]
async fn an_export_has_what_the_flags_say_in_order() {
    let server = Server::start().await;
    let answered = |n| VoiceCall {
        status: VoiceCallStatus::AnsweredByStaff.into(),
        ..call(n)
    };
    let input = lines([call(5), answered(3), answered(4), call(1)].into_iter());
    run_with_input(&server.endpoint, &["import"], &input)
        .await
        .ok();
    let exported = run(
        &server.endpoint,
        &["export", "--status", "answered-by-staff"],
    )
    .await
    .ok();
    assert_eq!(exported, lines([answered(3), answered(4)].into_iter()));
}

#[tokio::test]
async fn a_file_is_the_whole_export_or_what_it_was() {
    let server = Server::start().await;
    let was = "what it was, and longer than what it will be".repeat(100);
    let file = Scratch::new(&was);
    let mut reader = std::fs::File::open(&file.0).expect("it is there");
    let away = format!("http://127.0.0.1:{}", free_port());
    let args = ["export", "--timeout=0.5", "--output", file.path()];
    assert_eq!(run(&away, &args).await.code, Some(5));
    assert_eq!(file.content(), was);
    run_with_input(&server.endpoint, &["import"], EXAMPLE)
        .await
        .ok();
    assert_eq!(run(&server.endpoint, &args).await.ok(), "");
    assert_eq!(file.content(), format!("{EXAMPLE}\n"));
    // Whoever was reading sees no mixture.
    let mut read = String::new();
    reader.read_to_string(&mut read).expect("it can be read");
    assert_eq!(read, was);
    // Nothing else is left, and what is no ordinary file is not replaced.
    let name = file
        .0
        .file_name()
        .and_then(|name| name.to_str())
        .expect("text");
    let dir = std::fs::read_dir(std::env::temp_dir()).expect("it can be read");
    let names = dir.map(|entry| entry.expect("it can be read").file_name());
    let ours = names.filter(|other| other.to_str().is_some_and(|other| other.contains(name)));
    assert_eq!(ours.count(), 1);
    run(&server.endpoint, &["export", "-o", "/dev/null"])
        .await
        .ok();
    let null = std::fs::metadata("/dev/null").expect("it is there");
    assert!(!null.is_file());
    let ran = run(&server.endpoint, &["export", "-o", "/nowhere/calls"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .starts_with("voicecall: cannot write /nowhere/calls: ")
    );
}

#[tokio::test]
async fn a_person_sees_how_far_it_is() {
    let server = Server::start().await;
    let file = Scratch::new(&lines((0..5000).map(call)));
    let import = ["import", file.path()];
    let text = run_in_terminal(&server.endpoint, &import, 80, &[]).await;
    assert!(text.contains("calls  ") && text.contains(" left"), "{text}");
    assert!(text.ends_with(&summary(5000, 0, 0, 0, 0)), "{text}");
    let to = Scratch::new("");
    let export = ["export", "-o", to.path()];
    let text = run_in_terminal(&server.endpoint, &export, 80, &[]).await;
    assert!(text.contains("calls  "), "{text}");
    // On a terminal the calls themselves are to be seen.
    let text = run_in_terminal(&server.endpoint, &["export"], 80, &[]).await;
    assert_eq!(text, file.content());
}
