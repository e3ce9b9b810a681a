//! Resume tokens: a position in the change log, valid with any filter.
//!
//! A token is URL-safe base64 of a version byte, the log's id, the revision, the stamp of its
//! batch, and a checksum. The checksum has no key: a token grants nothing that its bearer
//! could not request by other means, so replicas need no shared secret.

use data_encoding::BASE64URL_NOPAD;
use xxhash_rust::xxh3::xxh3_64;

use crate::{api::error::Error, domain::Uuid, store::Position};

const VERSION: u8 = 1;
const BODY_LEN: usize = 1 + 16 + 8 + 8;
const LEN: usize = BODY_LEN + 4;

/// The contents of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeToken {
    /// The id of the log.
    pub feed_id: Uuid,
    /// The position in it.
    pub position: Position,
}

impl ResumeToken {
    /// Encodes the token as text.
    #[must_use]
    pub fn encode(self) -> String {
        let mut bytes = Vec::with_capacity(LEN);
        bytes.push(VERSION);
        bytes.extend(self.feed_id.as_bytes());
        bytes.extend(self.position.revision.to_be_bytes());
        bytes.extend(self.position.stamp.to_be_bytes());
        bytes.extend(checksum(&bytes));
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// Decodes a token.
    ///
    /// # Errors
    /// [`Error::InvalidResumeToken`]: truncated, corrupt or of another version.
    pub fn decode(text: &str) -> Result<Self, Error> {
        parse(text).ok_or(Error::InvalidResumeToken)
    }
}

fn parse(text: &str) -> Option<ResumeToken> {
    if text.len() != BASE64URL_NOPAD.encode_len(LEN) {
        return None;
    }
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    let (body, sum) = bytes.split_at_checked(BODY_LEN)?;
    let (version, rest) = body.split_first()?;
    let (feed_id, rest) = rest.split_first_chunk::<16>()?;
    let (revision, rest) = rest.split_first_chunk::<8>()?;
    let (stamp, _) = rest.split_first_chunk::<8>()?;
    let revision = i64::from_be_bytes(*revision);
    let valid = *version == VERSION && sum == checksum(body) && revision >= 0;
    valid.then_some(ResumeToken {
        feed_id: Uuid::from_bytes(*feed_id),
        position: Position {
            revision,
            stamp: i64::from_be_bytes(*stamp),
        },
    })
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = xxh3_64(body).to_be_bytes();
    [a, b, c, d]
}
