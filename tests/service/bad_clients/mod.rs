//! Clients that take more than their share, by intent or by accident: they hurt nobody else.
//!
//! - `abandoned_reads`: reads that are sent and cancelled
//! - `connection_age`: connections that are never closed
//! - `connection_share`: one connection with all the requests
//! - `full_table`: all the connections
//! - `handshakes`: connections without HTTP/2

mod abandoned_reads;
mod connection_age;
mod connection_share;
mod full_table;
mod handshakes;
