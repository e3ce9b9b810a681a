//! voicecall: the system of record for phone calls, a gRPC service on
//! PostgreSQL.
//!
//! The layers, from the inside out. Each one uses those above it in this list, and none
//! below:
//!
//! - [`domain`]: calls, commands and the state machine, without I/O
//! - [`store`]: calls in PostgreSQL: the group-commit writer, reads, the change log
//! - [`feed`]: every change, in order, for watchers
//! - [`api`]: the gRPC API: from requests to commands, from errors to statuses
//! - [`server`]: sockets, health and graceful shutdown
//!
//! Beside the layers:
//!
//! - [`proto`]: the wire contract, which the server and the client share
//! - [`postgres`]: the embedded PostgreSQL
//! - [`client`]: the client library, which knows only the API's messages, and [`cli`]: the
//!   command line built on it
//! - [`config`] and [`commands`]: the program's settings, and what its commands do
//!
//! `docs/architecture.md` describes how a write, a read and a change pass through the layers,
//! and the invariants that each layer keeps.

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
