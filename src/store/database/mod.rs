//! The way to the database: which server, over which connection, and for how long.
//!
//! - `connector` opens sessions: it tries the hosts of the URL (`url`, `servers`), each within its
//!   share of the time, and with TLS (`tls`) as the URL asks
//! - `role` is what a session is for, and the settings that it relies on
//! - `session` is the only home of the driver: statements are read to their end, and
//!   each of them has a limit on our side
//! - `pool` lends sessions for reads (`lease`), and repeats a read that failed because of its
//!   session
//! - `slots` decides which uses get connections when PostgreSQL has none left
//! - `availability` is whether the database can be reached: it pings. `clock` decides which time to
//!   believe, `lock` has what is locked; `migrations` bring the database to this release's schema,
//!   and `text_keys` notices when PostgreSQL hashes texts in another way than the indexes;
//!   `durability` warns of settings that lose what is committed
//!
//! It deliberately knows nothing of calls, or of what is read and written.

mod availability;
mod clock;
mod connector;
pub(super) mod durability;
mod lease;
mod lock;
mod migrations;
mod pool;
mod role;
mod servers;
mod session;
mod slots;
mod text_keys;
mod throttle;
mod tls;
mod url;

pub(super) use self::{
    availability::Availability,
    clock::Clock,
    lock::Lock,
    pool::{Attempts, Pool},
    role::Role,
    session::{Failure, Session},
    throttle::Throttle,
};
pub use self::{
    connector::Connector,
    migrations::{check as check_migrations, migrate},
};
