//! `voicecall token`: decodes page tokens and resume tokens without a service.
//!
//! The formats are those of `api::tokens`, whose parsers this does not use: the command
//! line knows nothing of the server. To all other clients tokens are opaque, and their format may
//! change.

use std::io::{self, Write};

use clap::Args;
use data_encoding::BASE64URL_NOPAD;
use prost_types::Timestamp;
use serde::Serializer;
use serde_json::Value;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    EXIT_CODES,
    failure::{Failure, one_line},
    time::Rfc3339,
};

/// Decode a resume token or a page token.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Token {
    /// The token.
    #[arg(value_name = "TOKEN", allow_hyphen_values = true)]
    token: String,

    /// Write JSON.
    #[arg(long)]
    json: bool,
}

/// The contents of a token, by name.
type Fields = Vec<(&'static str, Value)>;

impl Token {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let fields = decode(self.token.trim()).ok_or(Failure::InvalidToken)?;
        let mut out = io::stdout().lock();
        if self.json {
            let mut serializer = serde_json::Serializer::new(&mut out);
            let pairs = fields.iter().map(|(name, value)| (name, value));
            serializer.collect_map(pairs).map_err(io::Error::from)?;
            return Ok(writeln!(out)?);
        }
        let widest = fields.iter().map(|(name, _)| name.len()).max();
        for (name, value) in &fields {
            let value = match value {
                Value::String(text) => one_line(text),
                Value::Null => "-".to_owned(),
                other => other.to_string(),
            };
            writeln!(out, "{name:0$}  {value}", widest.unwrap_or_default())?;
        }
        Ok(())
    }
}

/// `None` for what is not a valid token of a known version.
fn decode(text: &str) -> Option<Fields> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    let [a, b, c, d, ..] = xxh3_64(body).to_be_bytes();
    (*sum == [a, b, c, d]).then_some(())?;
    let (version, body) = body.split_first()?;
    match version {
        // Page tokens of lists have the same version. In a resume token this byte holds the
        // variant bits of the log's id, a UUID; in a list's token it is the first byte of a
        // time, which never has these bits.
        1 if body.get(8)? >> 6 == 0b10 => resume(body),
        1 => list_page(body),
        2 => stats_page(body),
        _ => None,
    }
}

/// A position in the change log: after the change with this revision.
fn resume(body: &[u8]) -> Option<Fields> {
    let (feed_id, rest) = body.split_first_chunk::<16>()?;
    let (revision, stamp) = rest.split_first_chunk::<8>()?;
    Some(vec![
        ("kind", "resume token".into()),
        ("version", 1.into()),
        ("feed_id", Uuid::from_bytes(*feed_id).to_string().into()),
        ("revision", i64::from_be_bytes(*revision).into()),
        ("stamp", i64::from_be_bytes(stamp.try_into().ok()?).into()),
    ])
}

/// A position in a list: after the call with this time and uid.
fn list_page(body: &[u8]) -> Option<Fields> {
    let (query, rest) = body.split_first_chunk::<8>()?;
    let (time, uid) = rest.split_first_chunk::<8>()?;
    Some(vec![
        ("kind", "page token of a list".into()),
        ("version", 1.into()),
        ("query", hash(*query)),
        ("time", timestamp(i64::from_be_bytes(*time))),
        ("uid", Uuid::from_slice(uid).ok()?.to_string().into()),
    ])
}

/// A position in statistics: after the group with this key.
fn stats_page(body: &[u8]) -> Option<Fields> {
    let (query, key) = body.split_first_chunk::<8>()?;
    let (start, status, direction, staff_uid): (Option<i64>, Value, Value, Value) =
        serde_json::from_slice(key).ok()?;
    Some(vec![
        ("kind", "page token of statistics".into()),
        ("version", 2.into()),
        ("query", hash(*query)),
        ("bucket_start", start.map_or(Value::Null, timestamp)),
        ("status", status),
        ("direction", direction),
        ("staff_uid", staff_uid),
    ])
}

/// The hash of the query that the token belongs to.
fn hash(query: [u8; 8]) -> Value {
    format!("{:016x}", u64::from_be_bytes(query)).into()
}

fn timestamp(micros: i64) -> Value {
    let time = Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or_default(),
    };
    Rfc3339(time).to_string().into()
}
