//! Statistics agree with a recount of what an export has, in any time zone.

use std::collections::BTreeMap;

use jiff::{ToSpan, Unit, ZonedDateTime, tz::TimeZone};
use proptest::{
    prelude::*,
    sample::{select, subsequence},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use prost_types::Timestamp;
use tonic::Code;
use voicecall::proto::{
    BatchCreateVoiceCallsRequest, ExportVoiceCallsRequest, GetVoiceCallStatsRequest,
    GetVoiceCallStatsResponse, VoiceCall, VoiceCallDirection, VoiceCallFilter,
    VoiceCallStatsGroup as Group, VoiceCallStatsRow, VoiceCallStatus,
};

use crate::support::{Client, Server, assert_refused, create, delete, inbound, micros};

/// Shortly before clocks change: in Berlin back and forth, in New York back, on
/// Lord Howe Island by half an hour, and the day that Samoa left out.
const MOMENTS: [&str; 6] = [
    "2022-10-29T20:00:00Z",
    "2023-03-25T20:00:00Z",
    "2022-11-05T20:00:00Z",
    "2023-04-01T10:00:00Z",
    "2011-12-29T22:00:00Z",
    "2023-01-31T12:00:00Z",
];
const ZONES: [&str; 7] = [
    "",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "UTC",
];
const CALLS: usize = 800;

fn any_call() -> impl Strategy<Value = VoiceCall> {
    let moment = select(&MOMENTS[..]).prop_map(|moment| {
        let moment: jiff::Timestamp = moment.parse().expect("a time");
        moment.as_second()
    });
    let staff = prop::option::of(select(&["ann", "bob", "Zoë"][..]).prop_map(str::to_owned));
    let handled = prop::option::of(0..100_000_i64);
    (
        (moment, 0..90_000_i64, 0..1_000_000),
        1..=4,
        1..=2,
        staff,
        prop::option::of(0..1000),
        handled,
    )
        .prop_map(
            |((moment, offset, micros), status, direction, staff_uid, duration, handled)| {
                let seconds = moment + offset;
                VoiceCall {
                    created_at: Some(Timestamp {
                        seconds,
                        nanos: micros * 1000,
                    }),
                    handled_at: handled.map(|after| Timestamp {
                        seconds: seconds + after,
                        nanos: 0,
                    }),
                    status,
                    direction,
                    staff_uid,
                    duration,
                    ..VoiceCall::default()
                }
            },
        )
}

fn any_filter() -> impl Strategy<Value = VoiceCallFilter> {
    (
        prop::option::of(subsequence(vec![1, 2, 3, 4], 1..=4)),
        prop::option::of(subsequence(vec!["ann".to_owned(), "Zoë".to_owned()], 1..=2)),
        prop::option::of(0..1000),
        prop::option::of(any::<bool>()),
        any::<bool>(),
    )
        .prop_map(
            |(statuses, staff, min_duration, handled, show_deleted)| VoiceCallFilter {
                statuses: statuses.unwrap_or_default(),
                staff_uids: staff.unwrap_or_default(),
                min_duration,
                handled,
                show_deleted,
                ..VoiceCallFilter::default()
            },
        )
}

fn any_groups() -> impl Strategy<Value = Vec<Group>> {
    let buckets = [
        None,
        Some(Group::Hour),
        Some(Group::Day),
        Some(Group::Week),
        Some(Group::Month),
    ];
    let rest = subsequence(vec![Group::Status, Group::Direction, Group::Staff], 0..=3);
    (select(buckets.to_vec()), rest).prop_map(|(bucket, rest)| {
        // In no particular order: that of the rows is not that of the request.
        rest.into_iter().chain(bucket).collect()
    })
}

fn a_value<S: Strategy>(strategy: &S, runner: &mut TestRunner) -> S::Value {
    strategy.new_tree(runner).expect("a value").current()
}

async fn stats(
    client: &mut Client,
    request: &GetVoiceCallStatsRequest,
) -> GetVoiceCallStatsResponse {
    let answer = client.get_voice_call_stats(request.clone()).await;
    answer.expect("they are counted").into_inner()
}

/// A group by what it has in common, in the order of the rows.
type Key = (
    Option<i64>,
    Option<i32>,
    Option<i32>,
    (bool, Option<String>),
);

fn key_of(call: &VoiceCall, groups: &[Group], zone: &TimeZone) -> Key {
    let bucket = groups.iter().find_map(|group| {
        let created = jiff::Timestamp::from_microsecond(micros(call.created_at)).expect("a time");
        let local = created.to_zoned_datetime(zone.clone());
        let start = |local: &ZonedDateTime| local.start_of_day().expect("a day").timestamp();
        let days = |days: i8| local.checked_sub(i64::from(days).days()).expect("a time");
        let start = match group {
            Group::Hour => {
                let hour = local.datetime().round(
                    jiff::civil::DateTimeRound::new()
                        .smallest(Unit::Hour)
                        .mode(jiff::RoundMode::Trunc),
                );
                let hour = hour.expect("an hour");
                local.offset().to_timestamp(hour).expect("a time")
            }
            Group::Day => start(&local),
            Group::Week => start(&days(local.weekday().to_monday_zero_offset())),
            Group::Month => start(&local.first_of_month().expect("a month")),
            _ => return None,
        };
        Some(start.as_microsecond())
    });
    let has = |group| groups.contains(&group);
    let staff = call.staff_uid.clone().filter(|_| has(Group::Staff));
    (
        bucket,
        has(Group::Status).then_some(call.status),
        has(Group::Direction).then_some(call.direction),
        (staff.is_none(), staff),
    )
}

fn count(calls: &[VoiceCall]) -> VoiceCallStatsRow {
    let mean = |values: &[f64]| {
        let sum: f64 = values.iter().sum();
        (!values.is_empty()).then(|| sum / values.len() as f64)
    };
    let durations: Vec<_> = calls
        .iter()
        .filter_map(|call| call.duration)
        .map(f64::from)
        .collect();
    let to_handle: Vec<_> = calls
        .iter()
        .filter(|call| call.handled_at.is_some())
        .map(|call| (micros(call.handled_at) - micros(call.created_at)) as f64 / 1e6)
        .collect();
    VoiceCallStatsRow {
        key: None,
        count: calls.len() as i64,
        handled_count: to_handle.len() as i64,
        total_duration_seconds: durations.iter().sum::<f64>() as i64,
        mean_duration_seconds: mean(&durations),
        mean_seconds_to_handle: mean(&to_handle),
    }
}

fn nearly(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        // Years in seconds that cancel one another leave as much.
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1000.0),
        (a, b) => a == b,
    }
}

/// Why the rows are not those of these calls; `None` if they are.
pub(crate) fn difference(
    rows: &[VoiceCallStatsRow],
    calls: Vec<VoiceCall>,
    groups: &[Group],
    zone: &TimeZone,
) -> Option<String> {
    let mut expected = BTreeMap::<Key, Vec<VoiceCall>>::new();
    if groups.is_empty() {
        expected.insert((None, None, None, (true, None)), Vec::new());
    }
    for call in calls {
        let key = key_of(&call, groups, zone);
        expected.entry(key).or_default().push(call);
    }
    if rows.len() != expected.len() {
        return Some(format!("{} rows, not {}", rows.len(), expected.len()));
    }
    let same = |(row, (expected_key, calls)): &(&VoiceCallStatsRow, (Key, Vec<VoiceCall>))| {
        let key = row.key.clone().expect("it has one");
        let key: Key = (
            key.bucket_start.map(|start| micros(Some(start))),
            key.status,
            key.direction,
            (key.staff_uid.is_none(), key.staff_uid),
        );
        let counts =
            |row: &VoiceCallStatsRow| (row.count, row.handled_count, row.total_duration_seconds);
        let expected = count(calls);
        key == *expected_key
            && counts(row) == counts(&expected)
            && nearly(row.mean_duration_seconds, expected.mean_duration_seconds)
            && nearly(row.mean_seconds_to_handle, expected.mean_seconds_to_handle)
    };
    let wrong = rows.iter().zip(expected).find(|pair| !same(pair))?;
    Some(format!("{:?} is not of {:?}", wrong.0, wrong.1))
}

#[tokio::test]
async fn statistics_agree_with_a_recount_for_filters_groups_and_zones_at_random() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut runner = TestRunner::deterministic();
    let voice_calls: Vec<_> = (0..CALLS)
        .map(|_| a_value(&any_call(), &mut runner))
        .collect();
    let request = BatchCreateVoiceCallsRequest {
        voice_calls,
        ..Default::default()
    };
    let created = client.batch_create_voice_calls(request).await;
    let created = created.expect("created").into_inner().voice_calls;
    for call in created.iter().step_by(9) {
        delete(&mut client, &call.uid).await.expect("deleted");
    }
    for _ in 0..150 {
        let filter = a_value(&any_filter(), &mut runner);
        let groups = a_value(&any_groups(), &mut runner);
        let zone = a_value(&select(&ZONES[..]), &mut runner);
        let request = ExportVoiceCallsRequest {
            filter: Some(filter.clone()),
            ..Default::default()
        };
        let export = client.export_voice_calls(request).await;
        let mut export = export.expect("it begins").into_inner();
        let mut calls = Vec::new();
        while let Some(chunk) = export.message().await.expect("no error") {
            calls.extend(chunk.voice_calls);
        }
        let time_zone = TimeZone::get(if zone.is_empty() { "UTC" } else { zone });
        let time_zone = time_zone.expect("it is known");
        let total = calls.len() as i64;

        let mut request = GetVoiceCallStatsRequest {
            filter: Some(filter),
            group_by: groups.iter().map(|group| (*group).into()).collect(),
            time_zone: zone.into(),
            page_size: a_value(&(1..200), &mut runner),
            ..Default::default()
        };
        let mut rows = Vec::new();
        loop {
            let page = stats(&mut client, &request).await;
            assert_eq!(page.total_count, total);
            assert!(page.rows.len() <= usize::try_from(request.page_size).expect("positive"));
            rows.extend(page.rows);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        let wrong = difference(&rows, calls, &groups, &time_zone);
        assert_eq!(wrong, None, "{groups:?} {zone}");
    }
}

#[tokio::test]
async fn the_revision_is_that_of_the_counts() {
    let server = Server::start().await;
    let mut client = server.client();
    let empty = stats(&mut client, &GetVoiceCallStatsRequest::default()).await;
    assert_eq!(
        (empty.total_count, empty.revision, empty.rows.len()),
        (0, 0, 1)
    );
    for n in 1..=3 {
        create(&mut client, inbound()).await;
        let request = GetVoiceCallStatsRequest {
            min_revision: n,
            ..Default::default()
        };
        let counted = stats(&mut client, &request).await;
        assert_eq!((counted.total_count, counted.revision), (n, n));
    }
}

#[tokio::test]
async fn bad_arguments_are_all_named() {
    let server = Server::start().await;
    let mut client = server.client();
    let groups = |groups: &[Group]| groups.iter().map(|group| (*group).into()).collect();
    let good = GetVoiceCallStatsRequest {
        group_by: groups(&[Group::Status, Group::Direction]),
        page_size: 1,
        ..Default::default()
    };
    for direction in [VoiceCallDirection::Inbound, VoiceCallDirection::Outbound] {
        let call = VoiceCall {
            direction: direction.into(),
            status: VoiceCallStatus::Missed.into(),
            ..VoiceCall::default()
        };
        create(&mut client, call).await;
    }
    let token = stats(&mut client, &good).await.next_page_token;
    let bad = GetVoiceCallStatsRequest {
        filter: Some(VoiceCallFilter {
            uids: vec!["x".into()],
            ..Default::default()
        }),
        group_by: [
            groups(&[Group::Status, Group::Day, Group::Status, Group::Hour]),
            vec![0, 99],
        ]
        .concat(),
        time_zone: "Middle/Earth".into(),
        page_size: -1,
        min_revision: -1,
        ..Default::default()
    };
    assert_refused(
        client.get_voice_call_stats(bad).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[
            "filter.uids[0]",
            "group_by[2]",
            "group_by[3]",
            "group_by[4]",
            "group_by[5]",
            "time_zone",
            "page_size",
            "min_revision",
        ],
    );
    let with_token = |page_token: &str| GetVoiceCallStatsRequest {
        page_token: page_token.into(),
        ..good.clone()
    };
    let second = stats(&mut client, &with_token(&token)).await;
    assert_eq!(
        (second.rows.len(), second.next_page_token.as_str()),
        (1, "")
    );
    let others = [
        GetVoiceCallStatsRequest {
            group_by: groups(&[Group::Status]),
            ..with_token(&token)
        },
        GetVoiceCallStatsRequest {
            time_zone: "Europe/Berlin".into(),
            ..with_token(&token)
        },
        with_token("x"),
        with_token(&token[1..]),
        with_token(&token.repeat(100)),
    ];
    for request in others {
        assert_refused(
            client.get_voice_call_stats(request).await,
            Code::InvalidArgument,
            "INVALID_PAGE_TOKEN",
            &[],
        );
    }
    for zone in ["../../etc/passwd", "x'y", "utc0", &"x".repeat(10_000)] {
        let request = GetVoiceCallStatsRequest {
            time_zone: zone.into(),
            ..Default::default()
        };
        assert_refused(
            client.get_voice_call_stats(request).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &["time_zone"],
        );
    }
}
