pub(super) mod commands;
pub(super) mod fields;
pub(super) mod filter;
pub(super) mod uids;
