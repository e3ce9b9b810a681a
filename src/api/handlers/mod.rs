//! What each RPC does: `service` answers the unary ones, the other files are the streams
//! and the larger queries.

mod changes;
mod export;
mod import;
mod resume;
pub(super) mod service;
mod statistics;
mod watch;
