//! The servers that a database URL names, and what it says of all of them.

use std::net::IpAddr;

use tokio_postgres::{
    Config,
    config::{Host, SslMode, SslNegotiation},
};

use crate::store::error::OpenError;

const DEFAULT_PORT: u16 = 5432;

/// One of the servers that the URL names.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) host: Host,
    /// Where it is, if the URL says so: then its name is for TLS alone.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn name(&self) -> String {
        let host = match &self.host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        if self.port == DEFAULT_PORT {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// The servers that a URL names. An address without a name is its own name.
pub(super) fn servers(config: &Config) -> Result<Vec<Server>, OpenError> {
    let bad = |what: &str| Err(OpenError::BadUrl(what.to_owned()));
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let ports = config.get_ports();
    let count = hosts.len().max(addresses.len());
    if count == 0 {
        return bad("no host is given");
    }
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return bad("the number of hosts and of hostaddr values differ");
    }
    let has_at = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
    if hosts.iter().any(has_at) {
        return bad("a host name contains @; in a password, write it as %40");
    }
    if ports.len() > 1 && ports.len() != count {
        return bad("the number of hosts and of ports differ");
    }
    let server = |place: usize| {
        let address = addresses.get(place).copied();
        let name = || address.map_or_else(String::new, |address| address.to_string());
        Server {
            host: hosts
                .get(place)
                .cloned()
                .unwrap_or_else(|| Host::Tcp(name())),
            address,
            port: *ports.get(place).or(ports.first()).unwrap_or(&DEFAULT_PORT),
        }
    };
    Ok((0..count).map(server).collect())
}

/// Makes `sslmode` agree with the hosts: sockets never use TLS.
pub(super) fn ssl_mode(config: &Config, servers: &[Server]) -> Result<SslMode, OpenError> {
    let sockets = servers
        .iter()
        .filter(|server| matches!(server.host, Host::Unix(_)) && server.address.is_none())
        .count();
    let mode = config.get_ssl_mode();
    if sockets == servers.len() {
        return Ok(SslMode::Disable);
    }
    if sockets > 0 && mode == SslMode::Require {
        return Err(OpenError::BadUrl(
            "sockets do not use TLS: with this sslmode every host must be one of the network"
                .into(),
        ));
    }
    if mode == SslMode::Prefer && config.get_ssl_negotiation() == SslNegotiation::Direct {
        return Err(OpenError::BadUrl(
            "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full".into(),
        ));
    }
    Ok(mode)
}

/// Whether reads may use a standby, by `target_session_attrs`. By default they may not, unlike
/// in libpq: a write that was acknowledged must not be missing from the next read.
pub(super) fn accepts_standbys(target: Option<&str>) -> Result<bool, OpenError> {
    match target {
        None | Some("read-write" | "primary") => Ok(false),
        Some("any") => Ok(true),
        Some("read-only" | "standby" | "prefer-standby") => Err(OpenError::BadUrl(
            "target_session_attrs must be read-write, primary or any: the service writes".into(),
        )),
        Some(_) => Err(OpenError::BadUrl(
            "target_session_attrs must be read-write, primary or any".into(),
        )),
    }
}
