//! An encoded form, which the first who wants it makes for all.

use std::sync::OnceLock;

use bytes::Bytes;

/// With the states before the changes, and without.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    plain: OnceLock<Bytes>,
    with_previous: OnceLock<Bytes>,
}

impl Encoded {
    pub(super) fn get(&self, with_previous: bool, encode: impl FnOnce() -> Bytes) -> &Bytes {
        let slot = if with_previous {
            &self.with_previous
        } else {
            &self.plain
        };
        slot.get_or_init(encode)
    }
}
