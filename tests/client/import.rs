//! Imports by command.

use serde_json::{Value, json};
use voicecall::{
    client::Client,
    proto::{ListVoiceCallsRequest, VoiceCall},
};

use crate::{
    program::{command, run},
    support::{Server, eventually, secured::free_port},
    transfers::{EXAMPLE, Scratch, call, client, count, lines, run_with_input, summary},
};

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
    // Laid out for people, alone or in an array, and from standard input.
    let value: Value = serde_json::from_str(&array).expect("an array");
    for value in [&value, &value[0]] {
        let pretty = serde_json::to_string_pretty(value).expect("JSON");
        let imported = run_with_input(&server.endpoint, &["import", "--json"], &pretty).await;
        let expected =
            json!({"created": 0, "replaced": 0, "unchanged": 1, "skipped": 0, "refused": 0});
        assert_eq!(imported.json(), [expected]);
    }
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
            "voicecall: line 2: uid must be a string or null; colour is not a field of a call",
            "voicecall: line 4: direction is required; \
             recording_url must be an absolute http or https URL",
            "voicecall: line 5: not a JSON object: EOF while parsing a value at column 7",
            "voicecall: 3 records were refused",
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
            "voicecall: 2 records were refused",
        ]
    );
    let ran = run_with_input(&server.endpoint, &["import"], "[]\n{}\n{}").await;
    assert_eq!((ran.stdout, ran.code), (summary(0, 0, 0, 0, 1), Some(4)));
    assert!(
        ran.stderr
            .starts_with("voicecall: line 2: unexpected data after the array\n")
    );
}

#[tokio::test]
async fn what_is_longer_than_any_call_is_refused_and_passed_over() {
    let server = Server::start().await;
    let long = format!("{{\"call_summary\":\"{}\"}}", "a".repeat(5 << 20));
    let after = lines([call(0)].into_iter());
    for input in [format!("{long}\n{after}"), format!("[{long},\n{after}]")] {
        let ran = run_with_input(&server.endpoint, &["import", "--json"], &input).await;
        assert_eq!(ran.code, Some(4));
        assert_eq!(
            ran.stderr,
            "voicecall: line 1: longer than any valid record\nvoicecall: 1 record was refused\n"
        );
    }
    assert_eq!(count(&client(&server)).await, 1);
}

#[tokio::test]
async fn the_first_thousand_bad_lines_are_named_and_the_others_counted() {
    let server = Server::start().await;
    let ran = run_with_input(&server.endpoint, &["import"], &"{}x\n".repeat(1234)).await;
    assert_eq!(ran.stdout, summary(0, 0, 0, 0, 1234));
    assert_eq!(ran.code, Some(4));
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 1002);
    assert!(
        lines[999].starts_with("voicecall: line 1000: "),
        "{}",
        lines[999]
    );
    assert_eq!(lines[1000], "voicecall: and 234 more");
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

async fn head(client: &Client) -> i64 {
    let page = client.list_page(ListVoiceCallsRequest::default()).await;
    page.expect("a page").revision
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
