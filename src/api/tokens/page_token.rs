//! Page tokens: where the next page begins, bound to the query that they belong to.
//!
//! A token is URL-safe base64 of a version byte, a hash of the query, a position, and a
//! checksum. The position in a list is the last call's time and uid; in statistics it is the
//! last group's key. The checksum has no key: a token grants nothing that its bearer could not
//! request by other means, so replicas need no shared secret.

use data_encoding::BASE64URL_NOPAD;
use prost::Message;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{
    api::error::Error,
    domain::{
        Direction, Identifier, Status, Timestamp, Uuid,
        list::{Order, OrderField, PageKey},
        stats::{GroupKey, Groups},
    },
    proto,
};

const LIST_VERSION: u8 = 1;
const STATS_VERSION: u8 = 2;
const PREFIX_LEN: usize = 1 + 8;
const CHECKSUM_LEN: usize = 4;
/// Every token is shorter.
const MAX_LEN: usize = 1024;

/// What the token of a list is bound to: a hash of filter and order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListKey(u64);

impl ListKey {
    /// The key of a list.
    #[must_use]
    pub fn new(filter: Option<&proto::VoiceCallFilter>, order: Order) -> Self {
        let mut hash = hash_of(filter);
        let field = match order.field {
            OrderField::CreatedAt => 0,
            OrderField::UpdatedAt => 1,
        };
        hash.update(&[field, u8::from(order.descending)]);
        Self(hash.digest())
    }
}

/// What the token of statistics is bound to: a hash of filter, groups and time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatsKey(u64);

impl StatsKey {
    /// The key of statistics.
    #[must_use]
    pub fn new(filter: Option<&proto::VoiceCallFilter>, groups: Groups, time_zone: &str) -> Self {
        let mut hash = hash_of(filter);
        let bucket = groups.bucket.map_or(0, |bucket| 1 + bucket as u8);
        let flags = [groups.status, groups.direction, groups.staff].map(u8::from);
        hash.update(&[bucket]);
        hash.update(&flags);
        hash.update(time_zone.as_bytes());
        Self(hash.digest())
    }
}

/// An unset filter and an empty one are the same.
fn hash_of(filter: Option<&proto::VoiceCallFilter>) -> Xxh3 {
    let mut hash = Xxh3::new();
    hash.update(&filter.map(Message::encode_to_vec).unwrap_or_default());
    hash
}

/// The token for the page after the call at `key`.
#[must_use]
pub fn encode(list: ListKey, key: PageKey) -> String {
    let mut position = Vec::with_capacity(8 + 16);
    position.extend(key.time.micros().to_be_bytes());
    position.extend(key.uid.as_bytes());
    seal(LIST_VERSION, list.0, &position)
}

/// Where a page of `list` begins.
///
/// # Errors
/// [`Error::InvalidPageToken`]: truncated, corrupt, of another version or of another list.
pub fn decode(list: ListKey, token: &str) -> Result<PageKey, Error> {
    let parse = || {
        let position = open(LIST_VERSION, list.0, token)?;
        let (time, uid) = position.split_first_chunk::<8>()?;
        Some(PageKey {
            time: Timestamp::from_micros(i64::from_be_bytes(*time)).ok()?,
            uid: Uuid::from_slice(uid).ok()?,
        })
    };
    parse().ok_or(Error::InvalidPageToken)
}

type GroupPosition = (Option<i64>, Option<String>, Option<String>, Option<String>);

/// The token for the page after the group at `key`.
#[must_use]
pub fn encode_group(stats: StatsKey, key: &GroupKey) -> String {
    let position: GroupPosition = (
        key.bucket_start.map(Timestamp::micros),
        key.status.as_ref().map(|status| status.word().into()),
        key.direction
            .as_ref()
            .map(|direction| direction.word().into()),
        key.staff_uid.as_ref().map(|staff| staff.as_str().into()),
    );
    let position = serde_json::json!(position).to_string();
    seal(STATS_VERSION, stats.0, position.as_bytes())
}

/// After which group a page of `stats` begins.
///
/// # Errors
/// [`Error::InvalidPageToken`]: truncated, corrupt, of another version or of other
/// statistics.
pub fn decode_group(stats: StatsKey, token: &str) -> Result<GroupKey, Error> {
    let parse = || {
        let position = open(STATS_VERSION, stats.0, token)?;
        let position: GroupPosition = serde_json::from_slice(&position).ok()?;
        let (bucket_start, status, direction, staff_uid) = position;
        Some(GroupKey {
            bucket_start: bucket_start.map(Timestamp::clamped),
            status: status.as_deref().map(Status::from_word),
            direction: direction.as_deref().map(Direction::from_word),
            staff_uid: staff_uid.and_then(|staff_uid| Identifier::new(staff_uid).ok()),
        })
    };
    parse().ok_or(Error::InvalidPageToken)
}

fn seal(version: u8, query: u64, position: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(PREFIX_LEN + position.len() + CHECKSUM_LEN);
    bytes.push(version);
    bytes.extend(query.to_be_bytes());
    bytes.extend(position);
    bytes.extend(checksum(&bytes));
    BASE64URL_NOPAD.encode(&bytes)
}

fn open(version: u8, query: u64, token: &str) -> Option<Vec<u8>> {
    if token.len() > MAX_LEN {
        return None;
    }
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_LEN)?)?;
    let (prefix, position) = body.split_first_chunk::<PREFIX_LEN>()?;
    let (own_version, own_query) = prefix.split_first()?;
    let valid =
        *own_version == version && own_query == query.to_be_bytes() && sum == checksum(body);
    valid.then(|| position.to_vec())
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, ..] = xxh3_64(body).to_be_bytes();
    [a, b, c, d]
}
