//! Clients that take more than their share, by intent or by accident: they hurt nobody else.
//!
//! - `abandoned_reads`: reads that are sent and cancelled
//! - `full_database`: others have taken the connections of the database
//! - `snapshots`: everybody asks for a snapshot at once, and some do not read theirs
//! - `statistics`: statistics without end

mod abandoned_reads;
mod full_database;
mod snapshots;
mod statistics;
