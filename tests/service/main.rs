//! Black-box tests: a real server, a real PostgreSQL, a database of its own for
//! each test.

mod concurrency;
mod create;
mod database_tls;
mod support;
