//! Calls in the reference object's own shape: its sixteen keys in the order of
//! its example, null for what is absent, its words, and times in UTC.
//!
//! The revision is no part of the object and is left out.

use std::{borrow::Cow, fmt};

use prost_types::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    time::{self, Rfc3339},
    words,
};
use crate::proto::{VoiceCall, VoiceCallDirection, VoiceCallStatus};

/// A call that is written in the reference's shape.
#[derive(Debug, Serialize)]
struct Shape<'a> {
    uid: Option<&'a str>,
    created_at: Option<Rfc3339>,
    updated_at: Option<Rfc3339>,
    duration: Option<i32>,
    status: Option<Word>,
    direction: Option<Word>,
    staff_uid: Option<&'a str>,
    client_uid: Option<&'a str>,
    from_number: Option<&'a str>,
    to_number: Option<&'a str>,
    recording_url: Option<&'a str>,
    call_summary: Option<&'a str>,
    external_app_url: Option<&'a str>,
    handled_by_staff_uid: Option<&'a str>,
    handled_at: Option<Rfc3339>,
    deleted_at: Option<Rfc3339>,
}

/// A value of an enum: its word, or its number if this release is too old to
/// have one.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Word {
    Known(&'static str),
    Unknown(i32),
}

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Appends the call to `out`, as one line without its end.
///
/// # Errors
/// None that a call can cause; they are those of writing JSON.
pub fn write(call: &VoiceCall, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let shape = Shape {
        uid: (!call.uid.is_empty()).then_some(&call.uid),
        created_at: call.created_at.map(Rfc3339),
        updated_at: call.updated_at.map(Rfc3339),
        duration: call.duration,
        status: status_word(call.status),
        direction: direction_word(call.direction),
        staff_uid: call.staff_uid.as_deref(),
        client_uid: call.client_uid.as_deref(),
        from_number: call.from_number.as_deref(),
        to_number: call.to_number.as_deref(),
        recording_url: call.recording_url.as_deref(),
        call_summary: call.call_summary.as_deref(),
        external_app_url: call.external_app_url.as_deref(),
        handled_by_staff_uid: call.handled_by_staff_uid.as_deref(),
        handled_at: call.handled_at.map(Rfc3339),
        deleted_at: call.deleted_at.map(Rfc3339),
    };
    serde_json::to_writer(out, &shape)
}

fn status_word(number: i32) -> Option<Word> {
    match VoiceCallStatus::try_from(number) {
        Ok(known) => words::status(known).map(Word::Known),
        Err(_) => Some(Word::Unknown(number)),
    }
}

fn direction_word(number: i32) -> Option<Word> {
    match VoiceCallDirection::try_from(number) {
        Ok(known) => words::direction(known).map(Word::Known),
        Err(_) => Some(Word::Unknown(number)),
    }
}

/// Why a line is no call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShapeError {
    /// It is not a JSON object.
    Syntax(String),
    /// It is one, and these keys are wrong: each with what is wrong with it.
    Keys(Vec<(String, String)>),
}

impl fmt::Display for ShapeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(what) => write!(formatter, "not a JSON object: {what}"),
            Self::Keys(wrong) => {
                let wrong: Vec<_> = wrong
                    .iter()
                    .map(|(key, what)| format!("{key} {what}"))
                    .collect();
                formatter.write_str(&wrong.join("; "))
            }
        }
    }
}

impl std::error::Error for ShapeError {}

/// Reads a call from one line. Keys may come in any order; one that is left out
/// is null. Only the shape is checked here: lengths and the like are for the
/// service to judge.
///
/// # Errors
/// [`ShapeError`], with all that is wrong with the line.
pub fn parse(line: &str) -> Result<VoiceCall, ShapeError> {
    let Members(members) = serde_json::from_str(line).map_err(|error| syntax(&error))?;
    let mut reader = Reader::default();
    for (at, (key, value)) in members.iter().enumerate() {
        reader.member(&key.0, value.get());
        if members[..at].iter().any(|(earlier, _)| earlier.0 == key.0) {
            reader.blame(&key.0, "is repeated");
        }
    }
    if reader.wrong.is_empty() {
        Ok(reader.call)
    } else {
        Err(ShapeError::Keys(reader.wrong))
    }
}

/// A line has but one line: only the column says something.
fn syntax(error: &serde_json::Error) -> ShapeError {
    let text = error.to_string();
    let text = match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => text,
    };
    ShapeError::Syntax(text)
}

/// Text that is copied only if it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object as they stand there, repeated ones included.
struct Members<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Takes one member after the other.
#[derive(Default)]
struct Reader {
    call: VoiceCall,
    wrong: Vec<(String, String)>,
}

impl Reader {
    fn member(&mut self, key: &str, json: &str) {
        let call = &mut self.call;
        let set = match key {
            "uid" => text(json).map(|value| call.uid = value.unwrap_or_default()),
            "duration" => duration(json).map(|value| call.duration = value),
            "status" => status(json).map(|value| call.status = value),
            "direction" => direction(json).map(|value| call.direction = value),
            "created_at" => moment(json).map(|value| call.created_at = value),
            "updated_at" => moment(json).map(|value| call.updated_at = value),
            "handled_at" => moment(json).map(|value| call.handled_at = value),
            "deleted_at" => moment(json).map(|value| call.deleted_at = value),
            "staff_uid" => text(json).map(|value| call.staff_uid = value),
            "client_uid" => text(json).map(|value| call.client_uid = value),
            "from_number" => text(json).map(|value| call.from_number = value),
            "to_number" => text(json).map(|value| call.to_number = value),
            "recording_url" => text(json).map(|value| call.recording_url = value),
            "call_summary" => text(json).map(|value| call.call_summary = value),
            "external_app_url" => text(json).map(|value| call.external_app_url = value),
            "handled_by_staff_uid" => text(json).map(|value| call.handled_by_staff_uid = value),
            _ => Err("is not a field of a call".to_owned()),
        };
        if let Err(what) = set {
            self.blame(key, &what);
        }
    }

    fn blame(&mut self, key: &str, what: &str) {
        self.wrong.push((key.to_owned(), what.to_owned()));
    }
}

fn text(json: &str) -> Result<Option<String>, String> {
    serde_json::from_str(json).map_err(|_| "must be a string or null".to_owned())
}

fn duration(json: &str) -> Result<Option<i32>, String> {
    serde_json::from_str(json).map_err(|_| "must be a whole number of seconds or null".to_owned())
}

fn moment(json: &str) -> Result<Option<Timestamp>, String> {
    text(json)?.as_deref().map(time::parse_exact).transpose()
}

fn status(json: &str) -> Result<i32, String> {
    let Some(word) = text(json)? else {
        return Ok(VoiceCallStatus::Unspecified.into());
    };
    let status = words::status_of(&word);
    let status = status.ok_or_else(|| format!("must be one of {}", words::statuses()))?;
    Ok(status.into())
}

fn direction(json: &str) -> Result<i32, String> {
    let Some(word) = text(json)? else {
        return Ok(VoiceCallDirection::Unspecified.into());
    };
    let direction = words::direction_of(&word);
    let direction = direction.ok_or_else(|| format!("must be one of {}", words::directions()))?;
    Ok(direction.into())
}
