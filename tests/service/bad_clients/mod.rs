//! Clients that take more than their share, by intent or by accident: they hurt nobody else.
//!
//! - `abandoned_reads`: reads that are sent and cancelled

mod abandoned_reads;
