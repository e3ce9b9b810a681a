//! Black-box tests: a real server, a real PostgreSQL, a database of its own for
//! each test.
#![expect(
    clippy::disallowed_methods,
    reason = "the tasks of a test end with its runtime"
)]

mod concurrency;
mod bad_arguments;
mod bad_input;
mod create;
mod outcome;
mod handle_delete;
mod read;
mod request_ids;
mod support;
mod update;
