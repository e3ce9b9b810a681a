//! Page tokens: where the next page begins, tied to the list it belongs to.
//!
//! URL-safe base64 of a version byte, a hash of filter and order, the last
//! call's time and uid, and a checksum. The checksum has no key: a token grants
//! nothing that its bearer could not ask for by other means, so replicas share
//! no secret.

use data_encoding::BASE64URL_NOPAD;
use prost::Message;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{error::Error, proto};
use crate::domain::{
    Timestamp, Uuid,
    list::{Order, OrderField, PageKey},
};

const VERSION: u8 = 1;
const BODY_LEN: usize = 1 + 8 + 8 + 16;
const LEN: usize = BODY_LEN + 4;

/// What a token is tied to: a hash of the list's filter and order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListKey(u64);

impl ListKey {
    /// The key of a list.
    #[must_use]
    pub fn new(filter: Option<&proto::VoiceCallFilter>, order: Order) -> Self {
        let mut hash = Xxh3::new();
        // An unset filter and an empty one are the same list.
        hash.update(&filter.map(Message::encode_to_vec).unwrap_or_default());
        let field = match order.field {
            OrderField::CreatedAt => 0,
            OrderField::UpdatedAt => 1,
        };
        hash.update(&[field, u8::from(order.descending)]);
        Self(hash.digest())
    }
}

/// The token for the page after the call at `key`.
#[must_use]
pub fn encode(list: ListKey, key: PageKey) -> String {
    let mut bytes = Vec::with_capacity(LEN);
    bytes.push(VERSION);
    bytes.extend(list.0.to_be_bytes());
    bytes.extend(key.time.micros().to_be_bytes());
    bytes.extend(key.uid.as_bytes());
    bytes.extend(checksum(&bytes));
    BASE64URL_NOPAD.encode(&bytes)
}

/// Where a page of `list` begins.
///
/// # Errors
/// [`Error::InvalidPageToken`]: torn, mistyped, of another version or another
/// list.
pub fn decode(list: ListKey, token: &str) -> Result<PageKey, Error> {
    parse(list, token).ok_or(Error::InvalidPageToken)
}

fn parse(list: ListKey, token: &str) -> Option<PageKey> {
    if token.len() != BASE64URL_NOPAD.encode_len(LEN) {
        return None;
    }
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
    let (body, sum) = bytes.split_at_checked(BODY_LEN)?;
    let (version, body_rest) = body.split_first()?;
    let (list_hash, rest) = body_rest.split_first_chunk::<8>()?;
    let (time, uid) = rest.split_first_chunk::<8>()?;
    let valid =
        *version == VERSION && sum == checksum(body) && u64::from_be_bytes(*list_hash) == list.0;
    valid.then_some(())?;
    Some(PageKey {
        time: Timestamp::from_micros(i64::from_be_bytes(*time)).ok()?,
        uid: Uuid::from_slice(uid).ok()?,
    })
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = xxh3_64(body).to_be_bytes();
    [a, b, c, d]
}
