//! What each RPC does: `service` implements them all, and handles the simple ones itself;
//! the other files are the streams and the larger queries.

mod changes;
mod export;
mod import;
mod list;
mod narrowed;
mod resume;
pub(super) mod service;
mod statistics;
mod watch;
