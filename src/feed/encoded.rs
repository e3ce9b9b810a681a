//! The encoded forms of an entry or a batch, each of which is made once, by the first watcher
//! that needs it.

use std::sync::OnceLock;

use bytes::Bytes;

/// One form with the states before the changes, and one without.
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
