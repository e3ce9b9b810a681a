//! voicecall: the system of record for phone calls, a gRPC service on PostgreSQL.
//!
//! What others use of it:
//!
//! - [`client`]: the client library, over the messages of [`proto`]; all that there is with the
//!   feature `client` alone
//! - [`server`] and [`postgres`]: the service and its embedded PostgreSQL, to run them inside
//!   another program, such as a test; [`auth`]: who may call it
//! - [`run`]: the program
//!
//! Everything else is the service's own, and may change with any release; what tests and benchmarks
//! of this package use of it is public, but not documented here. From the inside out, each layer
//! knows those above it in this list and none below:
//!
//! - `domain`: calls, commands and the state machine; pure
//! - `store`: calls in PostgreSQL: commits, reads, the change log
//! - `feed`: every change, in order, for watchers
//! - `api`: the gRPC API: requests to commands, errors to statuses
//! - `server`: sockets, health, the order of a shutdown
//! - `auth`: who is calling, which `api` and `server` ask; `reload`: settings in files that
//!   change
//! - `cli`: the command line, which knows the client library, the messages and the domain alone;
//!   `config` and `commands`: the program's settings and what it does with them
//!
//! `docs/architecture.md` follows a write, a read and a change through them, with the
//! invariants that each layer keeps; `docs/decisions` has the reasons.

#[cfg(feature = "service")]
#[doc(hidden)]
pub mod api;
#[cfg(feature = "service")]
pub mod auth;
#[cfg(feature = "service")]
mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "service")]
mod commands;
#[cfg(feature = "service")]
mod config;
#[cfg(feature = "service")]
#[doc(hidden)]
pub mod domain;
#[cfg(feature = "service")]
mod feed;
#[cfg(feature = "service")]
pub mod postgres;
pub mod proto;
#[cfg(feature = "service")]
mod reload;
#[cfg(feature = "service")]
pub mod server;
#[cfg(feature = "service")]
#[doc(hidden)]
pub mod store;

#[cfg(feature = "service")]
pub use commands::run;
