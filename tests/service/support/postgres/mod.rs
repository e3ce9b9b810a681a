//! A real PostgreSQL for the tests, and a database of its own for each.

mod cluster;
mod connections;

pub(crate) use cluster::{Cluster, Durability, NO_FSYNC, binaries, unprivileged_account};
pub(crate) use connections::{
    Contents, Stopped, connect, contents, database_of, follower_backends, hold_commits, running,
    waiting_backend,
};
