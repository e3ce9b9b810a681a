//! Who may connect, and who may call: TLS and credentials, and the tasks that keep them current.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Tls, tls};
use crate::{
    api::Access,
    auth::{Authenticator, Sources},
    reload::{Current, Files},
    store::Supervisor,
};

/// The security of the server. By default there is none: anyone who reaches the socket may do
/// everything.
#[derive(Default)]
pub struct Security {
    /// TLS for clients; `None`: plaintext.
    pub tls: Option<(Files<Tls>, Current<Tls>)>,
    /// Finds out who is calling; `None`: nobody is asked.
    pub authentication: Option<(Authenticator, Sources)>,
    /// Whether reflection needs no credentials.
    pub open_reflection: bool,
    /// Files are read again when this changes, besides every second.
    pub reload: Option<watch::Receiver<u64>>,
}

impl Security {
    /// Starts the tasks that keep it current.
    pub(super) fn start(
        self,
        supervisor: &Supervisor,
        tasks: &TaskTracker,
    ) -> (Access, Option<Current<Tls>>) {
        let stop = supervisor.stopping();
        let signal = self.reload.unwrap_or_else(|| watch::channel(0).1);
        let tls = self.tls.map(|(files, current)| {
            let follow = files.follow(signal.clone(), stop.clone());
            supervisor.essential(tasks, "following the TLS certificate", follow);
            let report = tls::report_expiry(current.clone(), stop.clone());
            supervisor.essential(tasks, "reporting the expiry of the TLS certificate", report);
            current
        });
        let authenticator = self.authentication.map(|(authenticator, sources)| {
            for (task, future) in sources.tasks(&signal, &stop) {
                supervisor.essential(tasks, task, future);
            }
            Arc::new(authenticator)
        });
        let access = Access {
            authenticator,
            open_reflection: self.open_reflection,
        };
        (access, tls)
    }
}
