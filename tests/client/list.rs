//! `voicecall list`: filters, orders, limits, and ends that come early.

use std::process::Stdio;

use prost_types::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use voicecall::proto::{
    BatchCreateVoiceCallsRequest, VoiceCall, VoiceCallDirection, VoiceCallStatus,
};

use crate::{
    program::{command, run},
    support::{Server, create, delete, inbound, reference},
};

/// The uids of a list with these flags.
async fn uids(server: &Server, flags: &[&str]) -> Vec<String> {
    let text = run(&server.endpoint, &[&["list"], flags].concat())
        .await
        .ok();
    let first = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
    text.lines().map(first).collect()
}

async fn fill(server: &Server, count: usize) -> Vec<VoiceCall> {
    let request = BatchCreateVoiceCallsRequest {
        voice_calls: vec![inbound(); count],
        ..Default::default()
    };
    let response = server.client().batch_create_voice_calls(request).await;
    response.expect("created").into_inner().voice_calls
}

#[tokio::test]
async fn every_flag_narrows_the_list_as_its_field_does() {
    let server = Server::start().await;
    let mut client = server.client();
    let one = create(&mut client, reference()).await.uid;
    let plain = VoiceCall {
        created_at: Some(Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        status: VoiceCallStatus::Missed.into(),
        direction: VoiceCallDirection::Outbound.into(),
        from_number: Some("+1".into()),
        to_number: Some("+2".into()),
        ..VoiceCall::default()
    };
    let other = create(&mut client, plain).await.uid;
    let gone = create(&mut client, inbound()).await.uid;
    delete(&mut client, &gone).await.expect("deleted");
    let uid = reference().uid;
    let cases: [(&[&str], &[&str]); 30] = [
        (&[], &[&other, &one]),
        (&["--uid", &other, "--uid", &gone], &[&other]),
        (&["--staff", &uid], &[&one]),
        (&["--client", &uid], &[&one]),
        (&["--handled-by", &uid], &[&one]),
        (&["--status", "missed"], &[&other]),
        (
            &["--status=missed", "--status=answered by staff"],
            &[&other, &one],
        ),
        (&["--status", "answered-by-vonage"], &[]),
        (&["--direction", "inbound"], &[&one]),
        (&["--number", "+2"], &[&other]),
        (
            &["--number", "183466347342", "--number", "+1"],
            &[&other, &one],
        ),
        (&["--from", "+1"], &[&other]),
        (&["--from", "+2"], &[]),
        (&["--to", "+2"], &[&other]),
        (&["--created-after", "2023-01-01"], &[&other]),
        (&["--created-before", "2023-01-01T00:00:00+02:00"], &[&one]),
        (&["--updated-after", "2021-07-21"], &[&other, &one]),
        (&["--updated-before", "2021-07-21"], &[]),
        (&["--min-duration", "120"], &[&one]),
        (&["--max-duration", "119"], &[]),
        (&["--handled"], &[&one]),
        (&["--not-handled"], &[&other]),
        (&["--handled", "--not-handled"], &[&other]),
        (&["--recorded"], &[&one]),
        (&["--not-recorded"], &[&other]),
        (&["--deleted"], &[&gone, &other, &one]),
        (&["--order", "created"], &[&one, &other]),
        (&["--order", "updated"], &[&one, &other]),
        (&["--order", "updated-desc"], &[&other, &one]),
        (&["--limit", "1", "--min-revision", "4"], &[&other]),
    ];
    for (flags, expected) in cases {
        assert_eq!(uids(&server, flags).await, expected, "{flags:?}");
    }
}

#[tokio::test]
async fn fifty_are_shown_by_default_and_a_note_says_that_there_are_more() {
    let server = Server::start().await;
    fill(&server, 50).await;
    assert_eq!(uids(&server, &[]).await.len(), 50);
    fill(&server, 1_000).await;
    let ran = run(&server.endpoint, &["list"]).await;
    assert_eq!(ran.stdout.lines().count(), 50);
    assert_eq!(
        ran.stderr,
        "voicecall: only the first 50 are shown; pass --limit or --all for more\n"
    );
    assert_eq!(ran.code, Some(0));
    for (flags, count) in [
        (["--limit", "51"].as_slice(), 51),
        (&["--limit", "1049"], 1_049),
        (&["--limit", "5000"], 1_050),
        (&["--all"], 1_050),
    ] {
        let mut listed = uids(&server, flags).await;
        listed.sort();
        listed.dedup();
        assert_eq!(listed.len(), count, "{flags:?}");
    }
}

#[tokio::test]
async fn in_a_pipe_a_line_has_the_sixteen_fields_whatever_they_hold() {
    let server = Server::start().await;
    let call = VoiceCall {
        call_summary: Some("one\ttab\nand a line".into()),
        ..reference()
    };
    create(&mut server.client(), call).await;
    let text = run(&server.endpoint, &["list"]).await.ok();
    let fields: Vec<&str> = text.trim_end_matches('\n').split('\t').collect();
    assert_eq!(fields.len(), 16);
    assert_eq!(fields[1], "2021-07-20T14:00:00.000Z");
    assert_eq!(fields[3..6], ["120", "answered by staff", "inbound"]);
    assert_eq!(fields[11], "one tab and a line");
    assert_eq!(fields[15], "");
    assert!(!text.contains('\u{1b}'));
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_the_list_in_silence() {
    let server = Server::start().await;
    // Far more than a pipe holds.
    for _ in 0..3 {
        fill(&server, 1_000).await;
    }
    for flags in [["--all", "--json"].as_slice(), &["--all"]] {
        let mut child = command(&server.endpoint, &[&["list"], flags].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program is built");
        let mut reader = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        reader.read_line(&mut line).await.expect("a line");
        assert!(line.ends_with('\n'));
        drop(reader);
        let status = child.wait().await.expect("it ends");
        let mut complaint = String::new();
        let mut stderr = child.stderr.take().expect("piped");
        stderr.read_to_string(&mut complaint).await.expect("text");
        assert_eq!(
            (status.code(), complaint.as_str()),
            (Some(0), ""),
            "{flags:?}"
        );
    }
}
