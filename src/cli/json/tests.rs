//! The reference object's shape, read and written.

use super::*;

/// The reference's own example, on one line.
const EXAMPLE: &str = include_str!("example.json").trim_ascii();

fn example() -> VoiceCall {
    let uid = "d290f1ee-6c54-4b01-90e6-d701748f0851".to_owned();
    let time = Some(Timestamp {
        seconds: 1_626_789_600,
        nanos: 0,
    });
    VoiceCall {
        uid: uid.clone(),
        duration: Some(120),
        created_at: time,
        updated_at: time,
        status: VoiceCallStatus::AnsweredByStaff.into(),
        direction: VoiceCallDirection::Inbound.into(),
        staff_uid: Some(uid.clone()),
        client_uid: Some(uid.clone()),
        from_number: Some("183466347342".into()),
        to_number: Some("183466347342".into()),
        recording_url: Some("https://example.com/recording.mp3".into()),
        call_summary: Some("Client called to ask about their account balance".into()),
        external_app_url: Some("https://example.com/call-details".into()),
        handled_by_staff_uid: Some(uid),
        handled_at: time,
        deleted_at: None,
        revision: 0,
    }
}

fn inbound() -> VoiceCall {
    VoiceCall {
        direction: VoiceCallDirection::Inbound.into(),
        ..VoiceCall::default()
    }
}

fn written(call: &VoiceCall) -> String {
    let mut out = Vec::new();
    write(call, &mut out).expect("calls can be written");
    String::from_utf8(out).expect("JSON is text")
}

#[test]
fn the_reference_example_is_read_and_written_value_for_value() {
    let read = parse(EXAMPLE).expect("it is a call");
    assert_eq!(read, example());
    assert_eq!(written(&read), EXAMPLE);
}

#[test]
fn absent_is_null_and_the_revision_is_no_part_of_it() {
    let call = VoiceCall {
        revision: 7,
        ..inbound()
    };
    let nulls = concat!(
        r#"{"uid":null,"created_at":null,"updated_at":null,"duration":null,"status":null,"#,
        r#""direction":"inbound","staff_uid":null,"client_uid":null,"from_number":null,"#,
        r#""to_number":null,"recording_url":null,"call_summary":null,"external_app_url":null,"#,
        r#""handled_by_staff_uid":null,"handled_at":null,"deleted_at":null}"#
    );
    assert_eq!(written(&call), nulls);
    assert_eq!(parse(nulls), Ok(inbound()));
    assert_eq!(parse(r#"{"direction":"inbound"}"#), Ok(inbound()));
    assert_eq!(parse("{}"), Ok(VoiceCall::default()));
}

#[test]
fn every_word_microsecond_and_character_survives() {
    for status in [1, 2, 3, 4].map(VoiceCallStatus::try_from) {
        for direction in [1, 2].map(VoiceCallDirection::try_from) {
            let call = VoiceCall {
                status: status.expect("known").into(),
                direction: direction.expect("known").into(),
                duration: Some(i32::MAX),
                handled_at: Some(Timestamp {
                    seconds: -1,
                    nanos: 999_999_000,
                }),
                call_summary: Some("a \"quote\", a \\, a\nline\tand 日本語 \u{1f4de}".into()),
                ..example()
            };
            assert_eq!(parse(&written(&call)), Ok(call));
        }
    }
}

#[test]
fn a_value_newer_than_this_release_is_written_as_its_number() {
    let call = VoiceCall {
        status: 9,
        ..inbound()
    };
    assert!(written(&call).contains(r#""status":9,"direction":"inbound""#));
}

#[test]
fn escapes_and_any_order_of_keys_are_read() {
    let line = " { \"direction\" : \"in\\u0062ound\", \"call\\u005fsummary\":\"a\\nb\" } ";
    let call = VoiceCall {
        call_summary: Some("a\nb".into()),
        ..inbound()
    };
    assert_eq!(parse(line), Ok(call));
}

#[test]
fn a_line_that_is_no_object_says_where_it_goes_wrong() {
    for (line, expected) in [
        (
            "",
            "not a JSON object: EOF while parsing a value at column 0",
        ),
        (
            "{",
            "not a JSON object: EOF while parsing an object at column 1",
        ),
        (
            r#"{"uid" "a"}"#,
            "not a JSON object: expected `:` at column 8",
        ),
        (
            "[]",
            "not a JSON object: invalid type: sequence, expected an object at column 0",
        ),
        (
            "{} {}",
            "not a JSON object: trailing characters at column 4",
        ),
    ] {
        let error = parse(line).expect_err("no call");
        assert!(matches!(error, ParseError::Syntax(_)));
        assert_eq!(error.to_string(), expected, "{line}");
    }
}

#[test]
fn all_keys_that_are_wrong_are_named_at_once() {
    let line = concat!(
        r#"{"uid":7,"duration":1.5,"status":"answered","direction":"in","created_at":"yesterday","#,
        r#""handled_at":"2021-07-20T14:00:00","staff_uid":["a"],"colour":"red","#,
        r#""from_number":"1","from_number":"2","duration":3000000000}"#
    );
    let error = parse(line).expect_err("no call").to_string();
    let expected = [
        "uid must be a string or null",
        "duration must be a whole number of seconds or null",
        "status must be one of \"incoming call\", \"answered by staff\", \"missed\", \"answered by vonage\"",
        "direction must be one of \"inbound\", \"outbound\"",
        "created_at must be an RFC 3339 timestamp, such as \"2021-07-20T14:00:00.000Z\"",
        "handled_at must be an RFC 3339 timestamp, such as \"2021-07-20T14:00:00.000Z\"",
        "staff_uid must be a string or null",
        "colour is not a field of a call",
        "from_number is repeated",
        "duration must be a whole number of seconds or null",
        "duration is repeated",
    ];
    assert_eq!(error, expected.join("; "));
}
