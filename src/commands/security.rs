//! Puts together who may connect and call, from the settings.

use std::{error::Error, io, net::SocketAddr};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::warn;

use crate::{
    config,
    server::{self, Tls},
};

/// The security of a server on this address.
pub(super) fn load(
    settings: &config::Security,
    address: SocketAddr,
) -> Result<server::Security, Box<dyn Error>> {
    for warning in settings.warnings(address.ip())? {
        warn!("{warning}");
    }
    let tls = match settings.tls() {
        Some(paths) => Some(Tls::load(&paths)?),
        None => None,
    };
    let credentials = settings.credentials();
    let authentication = match credentials.is_empty() {
        true => None,
        false => Some(credentials.load()?),
    };
    Ok(server::Security {
        tls,
        authentication,
        open_reflection: settings.open_reflection,
        reload: Some(reload_on_signal()?),
    })
}

/// Changes with each SIGHUP.
fn reload_on_signal() -> io::Result<watch::Receiver<u64>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(0);
    // The task lives as long as the process, whose signals it handles.
    #[expect(clippy::disallowed_methods, reason = "owned by the process itself")]
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            sender.send_modify(|count| *count += 1);
        }
    });
    Ok(receiver)
}
