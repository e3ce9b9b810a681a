//! Calls in the JSON format of the voice call object: its sixteen keys in their order, null
//! for absent values, statuses and directions by name, and times in UTC.
//!
//! The revision is not part of the object, and is omitted.

use std::{borrow::Cow, fmt};

use prost_types::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    names,
    time::{self, Rfc3339},
};
use crate::proto::{VoiceCall, VoiceCallDirection, VoiceCallStatus};

/// The voice call object, as it is written.
#[derive(Debug, Serialize)]
struct Object<'a> {
    uid: Option<&'a str>,
    created_at: Option<Rfc3339>,
    updated_at: Option<Rfc3339>,
    duration: Option<i32>,
    status: Option<Name>,
    direction: Option<Name>,
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

/// A value of an enum: its name, or its number if this release does not know it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Name {
    Known(&'static str),
    Unknown(i32),
}

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Appends the call to `out`, as one line without a line break.
///
/// # Errors
/// Those of writing JSON, none of which a call can cause.
pub(crate) fn write(call: &VoiceCall, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let object = Object {
        uid: (!call.uid.is_empty()).then_some(&call.uid),
        created_at: call.created_at.map(Rfc3339),
        updated_at: call.updated_at.map(Rfc3339),
        duration: call.duration,
        status: status_name(call.status),
        direction: direction_name(call.direction),
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
    serde_json::to_writer(out, &object)
}

fn status_name(number: i32) -> Option<Name> {
    match VoiceCallStatus::try_from(number) {
        Ok(known) => names::status(known).map(Name::Known),
        Err(_) => Some(Name::Unknown(number)),
    }
}

fn direction_name(number: i32) -> Option<Name> {
    match VoiceCallDirection::try_from(number) {
        Ok(known) => names::direction(known).map(Name::Known),
        Err(_) => Some(Name::Unknown(number)),
    }
}

/// Why a line is not a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// It is not a JSON object.
    Syntax(String),
    /// It is a JSON object with these invalid keys: each with what is wrong with it.
    Keys(Vec<(String, String)>),
}

impl fmt::Display for ParseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(what) => write!(formatter, "not a JSON object: {what}"),
            Self::Keys(errors) => {
                let errors: Vec<_> = errors
                    .iter()
                    .map(|(key, what)| format!("{key} {what}"))
                    .collect();
                formatter.write_str(&errors.join("; "))
            }
        }
    }
}

impl std::error::Error for ParseError {}

/// Parses a call from one line. Keys may come in any order; a missing one is null. Only the
/// format is checked here; the service validates the values.
///
/// # Errors
/// [`ParseError`], with everything that is wrong with the line.
pub(crate) fn parse(line: &str) -> Result<VoiceCall, ParseError> {
    let Members(members) = serde_json::from_str(line).map_err(|error| syntax(&error))?;
    let mut reader = Reader::default();
    for (at, (key, value)) in members.iter().enumerate() {
        reader.member(&key.0, value.get());
        if members[..at].iter().any(|(earlier, _)| earlier.0 == key.0) {
            reader.error(&key.0, "is repeated");
        }
    }
    if reader.errors.is_empty() {
        Ok(reader.call)
    } else {
        Err(ParseError::Keys(reader.errors))
    }
}

/// The error without its line number, which is always 1.
fn syntax(error: &serde_json::Error) -> ParseError {
    let text = error.to_string();
    let text = match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => text,
    };
    ParseError::Syntax(text)
}

/// Text that is copied only if it contains escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object in their order, including repeated ones.
struct Members<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
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
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Reads a call, one member after the other.
#[derive(Default)]
struct Reader {
    call: VoiceCall,
    errors: Vec<(String, String)>,
}

impl Reader {
    fn member(&mut self, key: &str, json: &str) {
        let call = &mut self.call;
        let set = match key {
            "uid" => text(json).map(|value| call.uid = value.unwrap_or_default()),
            "duration" => duration(json).map(|value| call.duration = value),
            "status" => status(json).map(|value| call.status = value),
            "direction" => direction(json).map(|value| call.direction = value),
            "created_at" => timestamp(json).map(|value| call.created_at = value),
            "updated_at" => timestamp(json).map(|value| call.updated_at = value),
            "handled_at" => timestamp(json).map(|value| call.handled_at = value),
            "deleted_at" => timestamp(json).map(|value| call.deleted_at = value),
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
            self.error(key, &what);
        }
    }

    fn error(&mut self, key: &str, what: &str) {
        self.errors.push((key.to_owned(), what.to_owned()));
    }
}

fn text(json: &str) -> Result<Option<String>, String> {
    serde_json::from_str(json).map_err(|_| "must be a string or null".to_owned())
}

fn duration(json: &str) -> Result<Option<i32>, String> {
    serde_json::from_str(json).map_err(|_| "must be a whole number of seconds or null".to_owned())
}

fn timestamp(json: &str) -> Result<Option<Timestamp>, String> {
    text(json)?.as_deref().map(time::parse_exact).transpose()
}

fn status(json: &str) -> Result<i32, String> {
    let Some(name) = text(json)? else {
        return Ok(VoiceCallStatus::Unspecified.into());
    };
    let status = names::parse_status(&name);
    let status = status.ok_or_else(|| format!("must be one of {}", names::statuses()))?;
    Ok(status.into())
}

fn direction(json: &str) -> Result<i32, String> {
    let Some(name) = text(json)? else {
        return Ok(VoiceCallDirection::Unspecified.into());
    };
    let direction = names::parse_direction(&name);
    let direction = direction.ok_or_else(|| format!("must be one of {}", names::directions()))?;
    Ok(direction.into())
}

#[cfg(test)]
mod tests;
