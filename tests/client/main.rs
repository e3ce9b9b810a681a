//! Black-box tests of the client library and the command line: a real server, a
//! real PostgreSQL, and the program itself.
#![expect(
    clippy::disallowed_methods,
    reason = "the tasks of a test end with its runtime"
)]
#![expect(
    clippy::too_many_lines,
    reason = "a table of cases is as long as it has cases"
)]

mod calls;
mod commands;
mod credentials;
mod exit_codes;
mod export;
mod gate;
mod import;
mod import_stream;
mod list;
mod program;
mod retries;
mod stats;
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with the service's tests, which use all of it"
)]
#[path = "../service/support/mod.rs"]
mod support;
mod terminal;
mod tls;
mod tokens;
mod transfers;
mod watch;
