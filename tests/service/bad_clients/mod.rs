//! Clients that take more than their share, by intent or by accident: they hurt nobody else.
//!
//! - `abandoned_reads`: reads that are sent and cancelled
//! - `compression`: compressed requests, and messages that grow when they are decompressed
//! - `connection_age`: connections that are never closed
//! - `connection_share`: one connection with all the requests
//! - `full_database`: others have taken the connections of the database
//! - `full_table`: all the connections
//! - `handshakes`: connections without HTTP/2
//! - `metadata`: more metadata than the server takes
//! - `other_services`: health checks and reflection
//! - `resets`: many requests that are cancelled at once
//! - `side_by_side`: a well-behaved client beside each of them; it takes long
//! - `snapshots`: everybody asks for a snapshot at once, and some do not read theirs
//! - `stalled`: requests that do not arrive, and responses that are not taken
//! - `statistics`: statistics without end

mod abandoned_reads;
mod compression;
mod connection_age;
mod connection_share;
mod full_database;
mod full_table;
mod handshakes;
mod metadata;
mod other_services;
mod resets;
mod side_by_side;
mod snapshots;
mod stalled;
mod statistics;
