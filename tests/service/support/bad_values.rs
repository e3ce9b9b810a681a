//! Values that are refused wherever they stand.

use prost_types::Timestamp;
use voicecall::proto::VoiceCall;

use super::inbound;

fn with(set: impl FnOnce(&mut VoiceCall)) -> VoiceCall {
    let mut call = inbound();
    set(&mut call);
    call
}

/// Every field of a call that can be bad, and the path of it.
pub(crate) fn bad_fields() -> Vec<(VoiceCall, &'static str)> {
    [bad_texts(), bad_numbers()].concat()
}

fn bad_texts() -> Vec<(VoiceCall, &'static str)> {
    type Place = fn(&mut VoiceCall) -> &mut Option<String>;
    let names: [(&str, Place); 5] = [
        ("staff_uid", |call| &mut call.staff_uid),
        ("client_uid", |call| &mut call.client_uid),
        ("from_number", |call| &mut call.from_number),
        ("to_number", |call| &mut call.to_number),
        ("handled_by_staff_uid", |call| {
            &mut call.handled_by_staff_uid
        }),
    ];
    let urls: [(&str, Place); 2] = [
        ("recording_url", |call| &mut call.recording_url),
        ("external_app_url", |call| &mut call.external_app_url),
    ];
    let mut cases = Vec::new();
    for (path, place) in names {
        for bad in [
            &"a".repeat(65),
            &"ü".repeat(65),
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a\u{9f}",
        ] {
            cases.push((with(|call| *place(call) = Some(bad.into())), path));
        }
    }
    for (path, place) in urls {
        let long = format!("https://example.com/{}", "a".repeat(2029));
        for bad in [
            "example.com/a",
            "/a",
            "ftp://example.com/a",
            "https://",
            "https://exa mple.com/",
            "javascript:alert(1)",
            "https://example.com/\0",
            "https://example.com/\n",
            &long,
        ] {
            cases.push((with(|call| *place(call) = Some(bad.into())), path));
        }
    }
    for bad in [&"a".repeat(65_537), "a\0b", "a\rb", "a\u{1b}[0m"] {
        cases.push((
            with(|call| call.call_summary = Some(bad.into())),
            "call_summary",
        ));
    }
    cases
}

fn bad_numbers() -> Vec<(VoiceCall, &'static str)> {
    let mut cases = Vec::new();
    for bad in [-1, i32::MIN] {
        cases.push((with(|call| call.duration = Some(bad)), "duration"));
    }
    for bad in [5, -1, i32::MAX] {
        cases.push((with(|call| call.status = bad), "status"));
    }
    for bad in [3, -1] {
        cases.push((with(|call| call.direction = bad), "direction"));
    }
    for (seconds, nanos) in [
        (0, -1),
        (0, 1_000_000_000),
        (-62_135_596_801, 0),
        (253_402_300_800, 0),
        (i64::MAX, 0),
        (i64::MIN, 0),
    ] {
        let time = Some(Timestamp { seconds, nanos });
        cases.push((with(|call| call.handled_at = time), "handled_at"));
        cases.push((with(|call| call.created_at = time), "created_at"));
    }
    cases
}

/// What is no uid.
pub(crate) const BAD_UIDS: [&str; 8] = [
    "1",
    "not-a-uuid",
    "d290f1ee-6c54-4b01-90e6-d701748f085",
    "d290f1ee-6c54-4b01-90e6-d701748f08511",
    "d290f1ee6c544b0190e6d701748f0851",
    "{d290f1ee-6c54-4b01-90e6-d701748f0851}",
    "d290f1ee-6c54-4b01-90e6-d701748f085\0",
    "ü290f1ee-6c54-4b01-90e6-d701748f085",
];
