//! The change log, read: `log` has pages, positions and histories; `notification` tells
//! replicas that it has grown; `head` is a hint of how far it reaches.

pub(super) mod head;
pub(super) mod log;
pub(super) mod notification;
