//! Connections to PostgreSQL: how they are made, and what each kind of them is
//! allowed to do.

use std::time::Duration;

use diesel_async::AsyncPgConnection;
use tokio_postgres::{
    Config, NoTls,
    config::{Host, SslMode},
};

use super::error::OpenError;

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After how long without an acknowledgement a connection is given up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection is for, which decides its session settings.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// Commits batches. Never cancelled and without statement_timeout: a cancel
    /// during the wait for a synchronous standby commits and looks like a
    /// success. Locks and idling in a transaction have an end.
    Write,
    /// Looks up calls by uid, by one cached statement.
    Read,
    /// Lists: statements of many shapes, planned for their values.
    List,
    /// Looks after the database: migrations, partitions, pings.
    Maintain,
}

impl Role {
    fn application_name(self) -> &'static str {
        match self {
            Self::Write => "voicecall writer",
            Self::Read => "voicecall reader",
            Self::List => "voicecall lists",
            Self::Maintain => "voicecall maintenance",
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Write => {
                "-c lock_timeout=10s -c idle_in_transaction_session_timeout=10s -c jit=off"
            }
            Self::Read => "-c statement_timeout=10s -c jit=off -c enable_seqscan=off",
            Self::List => "-c plan_cache_mode=force_custom_plan -c jit=off",
            Self::Maintain => "-c lock_timeout=10s",
        }
    }
}

/// Makes connections to one database.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Config,
}

impl Connector {
    /// A connector for the database at `url` (a `postgres://` URL or a libpq
    /// keyword string).
    ///
    /// # Errors
    /// [`OpenError::BadUrl`], without repeating the URL, which may hold a
    /// password.
    pub fn new(url: &str) -> Result<Self, OpenError> {
        let bad = |error: tokio_postgres::Error| {
            let source = std::error::Error::source(&error);
            OpenError::BadUrl(source.map_or_else(|| error.to_string(), ToString::to_string))
        };
        let mut config: Config = url.parse().map_err(bad)?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(OpenError::BadUrl(
                "sslmode=require is not supported: connect by a private network or socket".into(),
            ));
        }
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives_idle(TCP_USER_TIMEOUT);
        Ok(Self { config })
    }

    /// The database in a few words, without its password.
    #[must_use]
    pub fn describe(&self) -> String {
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let name = self.config.get_dbname().or(self.config.get_user());
        format!(
            "database {} at {}",
            name.unwrap_or("postgres"),
            hosts.join(", ")
        )
    }

    /// Connects.
    ///
    /// # Errors
    /// [`OpenError::Connect`].
    pub(super) async fn connect(&self, role: Role) -> Result<AsyncPgConnection, OpenError> {
        let mut config = self.config.clone();
        let mut options = config.get_options().unwrap_or_default().to_owned();
        if !options.is_empty() {
            options.push(' ');
        }
        options.push_str(role.options());
        config
            .options(options)
            .application_name(role.application_name());
        let (client, connection) = config.connect(NoTls).await.map_err(|error| {
            let source = std::error::Error::source(&error);
            OpenError::Connect(source.map_or_else(|| error.to_string(), ToString::to_string))
        })?;
        AsyncPgConnection::try_from_client_and_connection(client, connection)
            .await
            .map_err(|error| OpenError::Connect(error.to_string()))
    }
}
