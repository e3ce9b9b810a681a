//! Black-box tests: a real server, a real PostgreSQL, a database of its own for
//! each test.
#![expect(
    clippy::disallowed_methods,
    reason = "the tasks of a test end with its runtime"
)]
#![expect(
    clippy::too_many_lines,
    reason = "a table of cases is as long as it has cases"
)]

mod access;
mod bad_arguments;
mod bad_clients;
mod bad_input;
mod change_log;
mod clock_storm;
mod clocks;
mod concurrency;
mod create;
mod database_faults;
mod database_tls;
mod errors;
mod examples;
mod export;
mod failover;
mod filter;
mod handle_delete;
mod history;
mod import;
mod interop;
mod migrations;
mod narrowing;
mod outcome;
mod page_tokens;
mod plans;
mod read;
mod request_ids;
mod retention;
mod rules;
mod schema;
mod server;
mod stats;
mod storm;
mod supervision;
mod support;
mod times;
mod two_servers;
mod update;
mod watch;
mod wire;
