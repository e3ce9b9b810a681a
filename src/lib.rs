//! voicecall: the system of record for phone calls, a gRPC service on
//! PostgreSQL.
//!
//! A map, from the inside out; each layer knows those above it in this list and
//! none below:
//!
//! - [`domain`]: calls, commands and the state machine; pure
//! - [`store`]: calls in PostgreSQL: the group-commit writer, reads, the change
//!   log
//! - [`feed`]: every change, in order, for those who watch
//! - [`api`]: the gRPC API: requests to commands, errors to statuses
//! - [`server`]: sockets, health, an end in order
//! - [`postgres`]: the embedded PostgreSQL, on its own beside the layers
//! - [`client`]: the client library, which knows the API's messages alone, and
//!   [`cli`]: the command line over it
//! - [`config`] and [`commands`]: the program's settings and what it does with
//!   them
//!
//! `docs/architecture.md` tells the life of a write and of a read, and the
//! invariants that each layer keeps.

#[cfg(feature = "service")]
pub mod api;
#[cfg(feature = "service")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "service")]
pub mod commands;
#[cfg(feature = "service")]
pub mod config;
#[cfg(feature = "service")]
pub mod domain;
#[cfg(feature = "service")]
pub mod feed;
#[cfg(feature = "service")]
pub mod postgres;
pub mod proto;
#[cfg(feature = "service")]
pub mod server;
#[cfg(feature = "service")]
pub mod store;
