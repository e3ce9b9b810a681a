//! Connections to PostgreSQL: how they are made, and what each kind of them is
//! allowed to do.

use std::time::Duration;

use diesel_async::AsyncPgConnection;
use tokio_postgres::{
    Config,
    config::{Host, SslMode, SslNegotiation},
};

use super::{
    error::OpenError,
    tls::{self, Tls},
    url::TlsParameters,
};

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
    /// Lists of plain shapes, for each of which one index is right whatever the
    /// values, and gives the order: planned once.
    PlainList,
    /// Reads the change log.
    Log,
    /// Listens for the word that there are changes.
    Listen,
    /// Spreads that word; it is only a hint, so its commit need not be durable.
    Notify,
    /// Looks after the database: migrations, partitions, pings.
    Maintain,
}

impl Role {
    pub(super) fn application_name(self) -> &'static str {
        match self {
            Self::Write => "voicecall writer",
            Self::Read => "voicecall reader",
            Self::List => "voicecall lists",
            Self::PlainList => "voicecall plain lists",
            Self::Log => "voicecall log",
            Self::Listen => "voicecall listener",
            Self::Notify => "voicecall notifier",
            Self::Maintain => "voicecall maintenance",
        }
    }

    fn options(self) -> &'static str {
        match self {
            // PL/pgSQL keeps the plans of its first calls, made when tables were
            // empty. These see to plans by index, and `commit_batch` to it that the
            // index is looked into and not read whole.
            Self::Write => {
                "-c lock_timeout=10s -c idle_in_transaction_session_timeout=10s -c jit=off \
                 -c plan_cache_mode=force_generic_plan -c enable_seqscan=off \
                 -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
            }
            Self::Read => "-c statement_timeout=10s -c jit=off -c enable_seqscan=off",
            Self::Log => "-c plan_cache_mode=force_custom_plan -c jit=off -c enable_seqscan=off",
            Self::Listen => "-c jit=off",
            Self::Notify => "-c synchronous_commit=off -c jit=off",
            Self::List => "-c plan_cache_mode=force_custom_plan -c jit=off",
            Self::PlainList => {
                "-c plan_cache_mode=force_generic_plan -c jit=off -c enable_seqscan=off \
                 -c enable_bitmapscan=off"
            }
            Self::Maintain => "-c lock_timeout=10s",
        }
    }
}

/// Makes connections to one database.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Config,
    tls: Tls,
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
        let (url, parameters) = TlsParameters::take_from(url);
        let mut config: Config = url.parse().map_err(bad)?;
        let tls = Tls::new(&parameters)?;
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives_idle(TCP_USER_TIMEOUT)
            .ssl_mode(tls.ssl_mode());
        fit_hosts(&mut config)?;
        Ok(Self { config, tls })
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
        let mut result = config.connect(self.tls.connector()).await;
        if let Err(error) = &result
            && config.get_ssl_mode() == SslMode::Prefer
            && tls::is_refused(error)
        {
            config.ssl_mode(SslMode::Disable);
            let plain = config.connect(self.tls.connector()).await;
            // Where neither way works, the first error tells more.
            result = plain.or(result);
        }
        let (client, connection) =
            result.map_err(|error| OpenError::Connect(explanation(&error)))?;
        AsyncPgConnection::try_from_client_and_connection(client, connection)
            .await
            .map_err(|error| OpenError::Connect(error.to_string()))
    }
}

/// Makes the hosts agree with `sslmode`: sockets never use TLS, and an address
/// without a name is its own name.
fn fit_hosts(config: &mut Config) -> Result<(), OpenError> {
    if config.get_hosts().is_empty() {
        for address in config.get_hostaddrs().to_vec() {
            config.host(address.to_string());
        }
    }
    let hosts = config.get_hosts();
    let sockets = hosts.iter().filter(|host| matches!(host, Host::Unix(_)));
    let sockets = sockets.count();
    let mode = config.get_ssl_mode();
    // An address has precedence over its host.
    if sockets > 0 && sockets == hosts.len() && config.get_hostaddrs().is_empty() {
        config.ssl_mode(SslMode::Disable);
    } else if sockets > 0 && mode == SslMode::Require {
        return Err(OpenError::BadUrl(
            "sockets do not use TLS: with this sslmode every host must be one of the network"
                .into(),
        ));
    } else if mode == SslMode::Prefer && config.get_ssl_negotiation() == SslNegotiation::Direct {
        return Err(OpenError::BadUrl(
            "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full".into(),
        ));
    }
    Ok(())
}

/// Why a connection failed, in the words of whoever knows best.
fn explanation(error: &tokio_postgres::Error) -> String {
    if let Some(error) = tls::handshake_error(error) {
        return format!("no TLS connection: {error}");
    }
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}
