//! From the wire to the domain: each request is validated as a whole, and all violations are
//! reported at once, by their path in the request.

pub(super) mod commands;
pub(super) mod fields;
pub(super) mod filter;
pub(super) mod uids;
