//! From the domain to the wire.

pub(super) mod budget;
pub(super) mod calls;
pub(super) mod changes;
pub(super) mod chunk;
