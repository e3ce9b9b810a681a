//! What a person sees.

use prost_types::Timestamp;
use unicode_width::UnicodeWidthStr;
use voicecall::proto::{VoiceCall, VoiceCallDirection, VoiceCallStatus};

use crate::{
    program::run_in_terminal,
    support::{Server, create, delete, inbound, reference},
};

const NO_COLOR: [(&str, &str); 1] = [("NO_COLOR", "1")];

async fn filled() -> Server {
    let server = Server::start().await;
    let mut client = server.client();
    let summary =
        "電話で口座残高についての問い合わせがあり、担当者が折り返し連絡することになった。"
            .repeat(3);
    let wide = VoiceCall {
        call_summary: Some(summary),
        ..reference()
    };
    create(&mut client, wide).await;
    let outbound = VoiceCall {
        created_at: Some(Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        status: VoiceCallStatus::Missed.into(),
        direction: VoiceCallDirection::Outbound.into(),
        to_number: Some("+14155550148".into()),
        ..VoiceCall::default()
    };
    create(&mut client, outbound).await;
    server
}

#[tokio::test]
async fn a_table_fits_the_terminal_whatever_its_width() {
    let server = filled().await;
    for columns in [40, 60, 80, 100, 120, 140, 200, 400] {
        let text = run_in_terminal(&server.endpoint, &["list"], columns, &NO_COLOR).await;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        for line in &lines {
            assert!(line.width() <= usize::from(columns), "{columns}: {line}");
            assert!(!line.ends_with(' '));
        }
        // What other commands ask for is never cut.
        assert!(lines[2].starts_with(&reference().uid), "{columns}: {text}");
    }
}

#[tokio::test]
async fn eighty_columns_identify_calls_and_two_hundred_show_every_field() {
    let server = filled().await;
    let text = run_in_terminal(&server.endpoint, &["list"], 80, &NO_COLOR).await;
    for part in [
        "2023-11-14 22:13",
        "missed",
        "→ +14155550148",
        "← 183466347342",
        "by staff",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = run_in_terminal(&server.endpoint, &["list"], 200, &NO_COLOR).await;
    for part in [
        "2023-11-14 22:13:20",
        "outbound",
        "answered by staff",
        "    120",
        "HANDLED BY",
        "…",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_person_sees_a_note_when_there_are_no_calls() {
    let server = Server::start().await;
    let text = run_in_terminal(&server.endpoint, &["list"], 80, &NO_COLOR).await;
    assert_eq!(text, "voicecall: no calls match\n");
}

#[tokio::test]
async fn deleted_calls_look_deleted() {
    let server = Server::start().await;
    let call = create(&mut server.client(), inbound()).await;
    delete(&mut server.client(), &call.uid)
        .await
        .expect("deleted");
    let list = ["list", "--deleted"];
    let narrow = run_in_terminal(&server.endpoint, &list, 80, &NO_COLOR).await;
    assert!(narrow.contains(" deleted "), "{narrow}");
    let wide = run_in_terminal(&server.endpoint, &list, 200, &NO_COLOR).await;
    assert!(wide.contains("DELETED (UTC)"), "{wide}");
}

#[tokio::test]
async fn colours_are_for_terminals_that_have_and_people_who_want_them() {
    let server = filled().await;
    for args in [["list"].as_slice(), &["get", &reference().uid]] {
        let coloured = run_in_terminal(&server.endpoint, args, 80, &[]).await;
        assert!(coloured.contains("\u{1b}["), "{coloured}");
        for vars in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
            let plain = run_in_terminal(&server.endpoint, args, 80, &vars).await;
            assert!(!plain.contains('\u{1b}'), "{plain}");
        }
    }
    let json = run_in_terminal(&server.endpoint, &["list", "--json"], 80, &[]).await;
    assert!(!json.contains('\u{1b}'), "{json}");
}

#[tokio::test]
async fn get_shows_every_field_and_wraps_long_texts() {
    let server = Server::start().await;
    let call = VoiceCall {
        call_summary: Some("word ".repeat(40) + "end\nsecond line"),
        ..inbound()
    };
    let call = create(&mut server.client(), call).await;
    let text = run_in_terminal(&server.endpoint, &["get", &call.uid], 80, &NO_COLOR).await;
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    for line in [
        &format!("uid                   {}", call.uid),
        "status                incoming call",
        "client_uid            -",
        "deleted_at            -",
        "revision              1",
        "                      second line",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line:?}: {text}");
    }
}
