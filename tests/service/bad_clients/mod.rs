//! Clients that take more than their share, by intent or by accident: they hurt nobody else.
//!
//! - `abandoned_reads`: reads that are sent and cancelled
//! - `stalled`: requests that do not arrive, and responses that are not taken

mod abandoned_reads;
mod stalled;
