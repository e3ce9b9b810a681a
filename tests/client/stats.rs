//! Statistics, by the library and by command.

use futures_util::TryStreamExt;
use prost_types::Timestamp;
use serde_json::json;
use unicode_width::UnicodeWidthStr;
use voicecall::{
    client::{Client, Settings},
    proto::{
        GetVoiceCallStatsRequest, VoiceCall, VoiceCallDirection, VoiceCallStatsGroup,
        VoiceCallStatus,
    },
};

use crate::{
    program::{run, run_in_terminal},
    support::{Server, create, inbound},
};

const NO_COLOR: [(&str, &str); 1] = [("NO_COLOR", "1")];

/// A call that began so many hours after midnight in Berlin, in winter.
fn call(hours: i64, status: VoiceCallStatus, duration: Option<i32>) -> VoiceCall {
    // 2026-01-14T23:00:00Z
    let midnight = 1_768_431_600;
    let at = |seconds| Timestamp { seconds, nanos: 0 };
    let created_at = midnight + hours * 3600;
    VoiceCall {
        created_at: Some(at(created_at)),
        status: status.into(),
        direction: VoiceCallDirection::Inbound.into(),
        staff_uid: duration.map(|_| "ann".into()),
        duration,
        handled_at: duration.map(|_| at(created_at + 90)),
        ..VoiceCall::default()
    }
}

/// Two calls that were answered on one day in Berlin, two days in UTC, and one
/// that was missed on the next.
async fn filled() -> Server {
    let server = Server::start().await;
    let mut client = server.client();
    for call in [
        call(0, VoiceCallStatus::AnsweredByStaff, Some(100)),
        call(12, VoiceCallStatus::AnsweredByStaff, Some(45)),
        call(30, VoiceCallStatus::Missed, None),
    ] {
        create(&mut client, call).await;
    }
    server
}

#[tokio::test]
async fn in_a_pipe_groups_are_fields_and_figures() {
    let server = filled().await;
    let stats = async |args: &[&str]| {
        run(&server.endpoint, &[&["stats"], args].concat())
            .await
            .ok()
    };
    assert_eq!(stats(&[]).await, "3\t2\t145\t72.500\t90.000\n");
    assert_eq!(
        stats(&["--by", "day,status", "--time-zone", "Europe/Berlin"]).await,
        "2026-01-15\tanswered by staff\t2\t2\t145\t72.500\t90.000\n\
         2026-01-16\tmissed\t1\t0\t0\t\t\n"
    );
    assert_eq!(
        stats(&["--by", "day", "--status", "answered-by-staff"]).await,
        "2026-01-14\t1\t1\t100\t100.000\t90.000\n2026-01-15\t1\t1\t45\t45.000\t90.000\n"
    );
    assert_eq!(
        stats(&["--by=staff", "--by=direction"]).await,
        "inbound\tann\t2\t2\t145\t72.500\t90.000\ninbound\t\t1\t0\t0\t\t\n"
    );
    for (by, first) in [
        ("hour", "2026-01-15 00:00+01:00\t"),
        ("week", "2026-01-12\t"),
        ("month", "2026-01\t"),
    ] {
        let text = stats(&["--by", by, "--time-zone", "Europe/Berlin"]).await;
        assert!(text.starts_with(first), "{by}: {text}");
    }
    assert_eq!(stats(&["--by", "day", "--direction", "outbound"]).await, "");
}

#[tokio::test]
async fn json_has_what_it_was_grouped_by_and_null_for_what_is_not_there() {
    let server = filled().await;
    let args = [
        "stats",
        "--json",
        "--by",
        "day,status,staff",
        "--time-zone",
        "Europe/Berlin",
    ];
    let rows = run(&server.endpoint, &args).await.json();
    assert_eq!(
        rows,
        [
            json!({
                "bucket_start": "2026-01-14T23:00:00.000Z", "status": "answered by staff",
                "staff_uid": "ann", "count": 2, "handled_count": 2,
                "total_duration_seconds": 145, "mean_duration_seconds": 72.5,
                "mean_seconds_to_handle": 90.0,
            }),
            json!({
                "bucket_start": "2026-01-15T23:00:00.000Z", "status": "missed",
                "staff_uid": null, "count": 1, "handled_count": 0,
                "total_duration_seconds": 0, "mean_duration_seconds": null,
                "mean_seconds_to_handle": null,
            }),
        ]
    );
}

#[tokio::test]
async fn on_a_terminal_bars_fill_the_space_that_is_left() {
    let server = filled().await;
    let args = [
        "stats",
        "--by",
        "day,status",
        "--time-zone",
        "Europe/Berlin",
    ];
    let mut bars = Vec::new();
    for columns in [80, 200] {
        let text = run_in_terminal(&server.endpoint, &args, columns, &NO_COLOR).await;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        for line in &lines {
            assert!(line.width() <= usize::from(columns), "{columns}: {line}");
        }
        let words: Vec<_> = lines[0].split_whitespace().collect();
        assert_eq!(
            words,
            [
                "DAY", "STATUS", "CALLS", "HANDLED", "MEAN", "TOTAL", "TO", "HANDLE"
            ]
        );
        let [long, short] = [1, 2].map(|at: usize| lines[at].matches('█').count());
        assert_eq!(short, long / 2, "{text}");
        bars.push(long);
        let line: Vec<_> = lines[1]
            .split_whitespace()
            .filter(|word| !word.contains('█'))
            .collect();
        assert_eq!(
            line.join(" "),
            "2026-01-15 answered by staff 2 100 % 1m 12s 2m 25s 1m 30s"
        );
    }
    assert!(bars[0] >= 8 && bars[1] == 60, "{bars:?}");
    // Too narrow for bars, and then for figures: what is left is whole.
    let text = run_in_terminal(&server.endpoint, &args, 40, &NO_COLOR).await;
    let line = text.lines().nth(1).expect("a row");
    assert!(
        line.starts_with("2026-01-15 ") && line.contains(" 2   100 % 1m 12s"),
        "{text}"
    );
    assert!(
        !text.contains('█') && text.lines().all(|line| line.width() <= 40),
        "{text}"
    );
    let nothing = ["stats", "--by", "day", "--direction", "outbound"];
    let text = run_in_terminal(&server.endpoint, &nothing, 80, &NO_COLOR).await;
    assert_eq!(text, "voicecall: no calls match\n");
}

#[tokio::test]
async fn what_the_service_refuses_is_reported() {
    let server = Server::start().await;
    for (args, what) in [
        (
            ["--by=day,hour", "--json"],
            "must be the only one of HOUR, DAY, WEEK and MONTH",
        ),
        (
            ["--by=day", "--time-zone=Mars/Base"],
            "is not an IANA time zone",
        ),
    ] {
        let ran = run(&server.endpoint, &[&["stats"], &args[..]].concat()).await;
        assert_eq!(ran.code, Some(4));
        assert!(ran.stderr.contains(what), "{ran:?}");
    }
}

#[tokio::test]
async fn the_library_goes_through_all_pages() {
    let server = Server::start().await;
    let mut client = server.client();
    for staff in ["a", "b", "c", "d", "e"] {
        let call = VoiceCall {
            staff_uid: Some(staff.into()),
            ..inbound()
        };
        create(&mut client, call).await;
    }
    let client = Client::new(&Settings::new(&server.endpoint)).expect("good settings");
    let request = GetVoiceCallStatsRequest {
        group_by: vec![VoiceCallStatsGroup::Staff.into()],
        page_size: 2,
        ..Default::default()
    };
    let pages: Vec<_> = client.stats(request).try_collect().await.expect("pages");
    let sizes: Vec<_> = pages.iter().map(|page| page.rows.len()).collect();
    assert_eq!(sizes, [2, 2, 1]);
    let keys = pages
        .into_iter()
        .flat_map(|page| page.rows)
        .filter_map(|row| row.key?.staff_uid);
    assert_eq!(keys.collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
}
