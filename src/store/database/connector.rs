//! Opens sessions. It tries the servers of the URL in turn, beginning with the one that gave
//! the last session. Each has its share of the time, for the connection, the TLS handshake and
//! the session's settings.
//!
//! A standby is skipped, unless the URL says `target_session_attrs=any` and the session only
//! reads: what a standby shows may be older than what was acknowledged before.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::seq::SliceRandom;
use tokio::{
    net::lookup_host,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{
    Config,
    config::{Host, LoadBalanceHosts, SslMode},
    error::SqlState,
};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::{
    role::Role,
    servers::{Server, accepts_standbys, servers, ssl_mode},
    session::{Session, SessionError},
    slots::Slots,
    tls::{self, Tls},
    url::Parameters,
};
use crate::store::error::OpenError;

/// How long all servers together may take to give a session.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The least time that each of them has, however many there are.
const MIN_SHARE: Duration = Duration::from_secs(1);
/// How long sent data may remain unacknowledged before the connection is given up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a use that comes first (see `slots`) waits for a connection, and how often it
/// tries.
const SLOT_TIME: Duration = Duration::from_secs(2);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Opens sessions with one database. Clones share what is known of its servers.
#[derive(Debug, Clone)]
pub struct Connector(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    servers: Vec<Server>,
    /// What is the same for all servers.
    config: Config,
    tls: Tls,
    /// Whether reads may use a standby.
    accepts_standbys: bool,
    in_random_order: bool,
    /// The place of the server that gave the last session.
    last_good: AtomicUsize,
    /// Owns the tasks that drive the connections. Each ends with its session.
    tasks: TaskTracker,
    /// The same tasks, to end all of them at once.
    drivers: Mutex<Vec<AbortHandle>>,
    slots: Slots,
}

/// Why a server gave no session.
struct Unreached {
    reason: String,
    /// It has no connection left.
    full: bool,
}

impl From<String> for Unreached {
    fn from(reason: String) -> Self {
        Self {
            reason,
            full: false,
        }
    }
}

impl From<&tokio_postgres::Error> for Unreached {
    fn from(error: &tokio_postgres::Error) -> Self {
        Self {
            reason: explanation(error),
            full: error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS),
        }
    }
}

impl Connector {
    /// A connector for the database at `url` (a `postgres://` URL or a libpq
    /// keyword string).
    ///
    /// # Errors
    /// [`OpenError::BadUrl`], which does not repeat the URL, because that may contain a
    /// password.
    pub fn new(url: &str) -> Result<Self, OpenError> {
        let bad = |error: tokio_postgres::Error| {
            let source = std::error::Error::source(&error);
            OpenError::BadUrl(source.map_or_else(|| error.to_string(), ToString::to_string))
        };
        let (url, parameters) = Parameters::take_from(url);
        let mut config: Config = url.parse().map_err(bad)?;
        let tls = Tls::new(&parameters)?;
        config.ssl_mode(tls.ssl_mode());
        let servers = servers(&config)?;
        let ssl_mode = ssl_mode(&config, &servers)?;
        Ok(Self(Arc::new(Inner {
            servers,
            in_random_order: config.get_load_balance_hosts() == LoadBalanceHosts::Random,
            config: without_servers(&config, ssl_mode),
            tls,
            accepts_standbys: accepts_standbys(parameters.target.as_deref())?,
            last_good: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            drivers: Mutex::default(),
            slots: Slots::default(),
        })))
    }

    /// The database's name and servers, for messages: without the password.
    #[must_use]
    pub fn describe(&self) -> String {
        let hosts: Vec<String> = self.0.servers.iter().map(Server::name).collect();
        let config = &self.0.config;
        let name = config.get_dbname().or(config.get_user());
        format!(
            "database {} at {}",
            name.unwrap_or("postgres"),
            hosts.join(", ")
        )
    }

    /// Connects, within about 5 s.
    ///
    /// # Errors
    /// [`OpenError::Connect`]: each server that was tried, and why it gave no session.
    /// [`OpenError::NoConnectionLeft`]: one of them has no connection left, or the last ones
    /// are for uses that come first (see `slots`).
    pub(in crate::store) async fn connect(&self, role: Role) -> Result<Session, OpenError> {
        if role.gives_way() && self.0.slots.are_short() {
            return Err(self.no_connection_left("writes and look-ups come first"));
        }
        let mut failures = Vec::new();
        let mut is_full = false;
        for place in self.order() {
            let server = &self.0.servers[place];
            let share = self.share();
            let attempt = timeout(share, self.connect_to(server, role)).await;
            let attempt = attempt.unwrap_or_else(|_| {
                Err(format!("no session within {} ms", share.as_millis()).into())
            });
            match attempt {
                Ok(session) => {
                    let before = self.0.last_good.swap(place, Ordering::AcqRel);
                    if before != place && !failures.is_empty() {
                        warn!(
                            "connected to the database at {} after others failed: {}",
                            server.name(),
                            failures.join("; ")
                        );
                    }
                    return Ok(session);
                }
                Err(Unreached { reason, full }) => {
                    is_full |= full;
                    failures.push(format!("{}: {reason}", server.name()));
                }
            }
        }
        let failures = failures.join("; ");
        Err(if is_full {
            self.no_connection_left(&failures)
        } else {
            OpenError::Connect(failures)
        })
    }

    /// Connects for a use that comes first. If there is no connection left, the other uses
    /// close their idle sessions, and open none until this one is open or has given up.
    pub(in crate::store) async fn connect_first(&self, role: Role) -> Result<Session, OpenError> {
        let session = self.connect(role).await;
        if !matches!(session, Err(OpenError::NoConnectionLeft { .. })) {
            return session;
        }
        let _waiting = self.0.slots.wait();
        let give_up = Instant::now() + SLOT_TIME;
        loop {
            self.0.slots.close_idle();
            sleep(RETRY_INTERVAL).await;
            let session = self.connect(role).await;
            let is_full = matches!(session, Err(OpenError::NoConnectionLeft { .. }));
            if !is_full || Instant::now() >= give_up {
                return session;
            }
        }
    }

    /// Which uses get the last connections.
    pub(in crate::store) fn slots(&self) -> &Slots {
        &self.0.slots
    }

    fn no_connection_left(&self, reason: &str) -> OpenError {
        let drivers = self.drivers();
        OpenError::NoConnectionLeft {
            had: drivers
                .iter()
                .filter(|driver| !driver.is_finished())
                .count(),
            wanted: self.0.slots.wanted(),
            reason: reason.to_owned(),
        }
    }

    /// Ends all sessions but this one, so that what waits for them fails at once. For when
    /// old connections are known to be dead, although nothing has closed them.
    pub(super) fn abandon_all_but(&self, session: &Session) {
        let kept = session.driver();
        let mut drivers = self.drivers();
        for driver in drivers.iter().filter(|driver| driver.id() != kept.id()) {
            driver.abort();
        }
        drivers.retain(|driver| !driver.is_finished());
        warn!("connections to the database do not respond; reconnecting all of them");
    }

    fn drivers(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.0
            .drivers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next sessions try the other servers before the present one.
    pub(in crate::store) fn try_others_first(&self) {
        let servers = self.0.servers.len();
        let last_good = self.0.last_good.load(Ordering::Acquire);
        let next = (last_good + 1) % servers.max(1);
        self.0.last_good.store(next, Ordering::Release);
    }

    /// The places of the servers in the order in which they are tried.
    fn order(&self) -> Vec<usize> {
        let last_good = self.0.last_good.load(Ordering::Acquire);
        let mut others: Vec<usize> = (0..self.0.servers.len())
            .filter(|place| *place != last_good)
            .collect();
        if self.0.in_random_order {
            others.shuffle(&mut rand::rng());
        }
        others.insert(0, last_good);
        others
    }

    /// The time that each server has.
    fn share(&self) -> Duration {
        let servers = u32::try_from(self.0.servers.len()).unwrap_or(u32::MAX);
        (CONNECT_TIME / servers.max(1)).max(MIN_SHARE)
    }

    /// Connects to one server, by any of its addresses.
    async fn connect_to(&self, server: &Server, role: Role) -> Result<Session, Unreached> {
        let Host::Tcp(host) = &server.host else {
            return self.connect_at(server, None, role).await;
        };
        if server.address.is_some() {
            return self.connect_at(server, server.address, role).await;
        }
        let addresses = lookup_host((host.as_str(), server.port)).await;
        let addresses = addresses.map_err(|error| format!("cannot resolve {host}: {error}"))?;
        let addresses: Vec<IpAddr> = addresses.map(|address: SocketAddr| address.ip()).collect();
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let share = self.share() / count.max(1);
        let mut failures = Vec::new();
        let mut is_full = false;
        for address in addresses {
            match timeout(share, self.connect_at(server, Some(address), role)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(unreached)) if count == 1 => return Err(unreached),
                Ok(Err(Unreached { reason, full })) => {
                    is_full |= full;
                    failures.push(format!("at {address}: {reason}"));
                }
                Err(_) => failures.push(format!(
                    "at {address}: no session within {} ms",
                    share.as_millis()
                )),
            }
        }
        if failures.is_empty() {
            failures.push("the name has no address".to_owned());
        }
        Err(Unreached {
            reason: failures.join("; "),
            full: is_full,
        })
    }

    async fn connect_at(
        &self,
        server: &Server,
        address: Option<IpAddr>,
        role: Role,
    ) -> Result<Session, Unreached> {
        let mut config = self.0.config.clone();
        config
            .application_name(role.application_name())
            .port(server.port);
        match &server.host {
            Host::Tcp(name) => config.host(name),
            Host::Unix(path) => config.host_path(path),
        };
        if let Some(address) = address {
            config.hostaddr(address);
        }
        let tls = || self.0.tls.connector();
        let mut result = config.connect(tls()).await;
        if let Err(error) = &result
            && config.get_ssl_mode() == SslMode::Prefer
            && tls::is_refused(error)
        {
            config.ssl_mode(SslMode::Disable);
            let plain = config.connect(tls()).await;
            // If neither way works, the first error says more.
            result = plain.or(result);
        }
        let (client, connection) = result.map_err(|error| Unreached::from(&error))?;
        let start = Session::start(client, connection, role, tls(), &self.0.tasks);
        let (session, is_standby) = start.await.map_err(|error| match error {
            SessionError::Settings(error) => Unreached::from(&error),
            SessionError::Driver(error) => error.to_string().into(),
        })?;
        if is_standby && (role.needs_primary() || !self.0.accepts_standbys) {
            return Err("the server is a standby".to_owned().into());
        }
        let mut drivers = self.drivers();
        drivers.retain(|driver| !driver.is_finished());
        drivers.push(session.driver());
        drop(drivers);
        Ok(session)
    }
}

/// The same settings without the servers.
fn without_servers(from: &Config, ssl_mode: SslMode) -> Config {
    let mut config = Config::new();
    if let Some(user) = from.get_user() {
        config.user(user);
    }
    if let Some(password) = from.get_password() {
        config.password(password);
    }
    if let Some(name) = from.get_dbname() {
        config.dbname(name);
    }
    if let Some(options) = from.get_options() {
        config.options(options);
    }
    if let Some(interval) = from.get_keepalives_interval() {
        config.keepalives_interval(interval);
    }
    if let Some(retries) = from.get_keepalives_retries() {
        config.keepalives_retries(retries);
    }
    config
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .keepalives(from.get_keepalives())
        .keepalives_idle(TCP_USER_TIMEOUT)
        .ssl_mode(ssl_mode)
        .ssl_negotiation(from.get_ssl_negotiation())
        .channel_binding(from.get_channel_binding());
    config
}

/// Why a connection failed: the underlying error, which says most.
fn explanation(error: &tokio_postgres::Error) -> String {
    if let Some(error) = tls::handshake_error(error) {
        return format!("no TLS connection: {error}");
    }
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}
