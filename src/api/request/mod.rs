//! From the wire to the domain: each request is checked as a whole, and everything that is
//! wrong with it is said at once, by its path in the request.

pub(super) mod commands;
pub(super) mod fields;
pub(super) mod filter;
pub(super) mod uids;
