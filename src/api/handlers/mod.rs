pub(super) mod changes;
pub(super) mod export;
pub(super) mod import;
pub(super) mod service;
pub(super) mod statistics;
pub(super) mod watch;
