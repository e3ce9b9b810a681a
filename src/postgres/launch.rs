//! How the server is started: its programs, its account, its directories, and its
//! settings. They go on the command line, which overrules the files in the cluster,
//! so that a new version of the service brings its own. No processes here: `server`
//! runs what this describes.

use std::{ffi::OsString, path::PathBuf, process::Stdio};

use tokio::process::Command;

use super::{
    Binaries, Error,
    account::Account,
    logs::Logs,
    socket::{PORT, SocketDir},
};

/// What is the same wherever the server runs: durable above all, then for a modest
/// share of the machine and many short statements.
const SETTINGS: [&str; 15] = [
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "cluster_name=voicecall",
    "max_connections=100",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    // A table that grows is to be looked at soon: its lists are planned by that.
    "autovacuum_naptime=10s",
    // Compiling costs short statements more than it saves.
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
    // The reasons of failures are read.
    "lc_messages=C",
    // After a backend's crash the server recovers by itself, faster than we could.
    "restart_after_crash=on",
];

/// All that starting the server takes. The same for every restart.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) binaries: Binaries,
    pub(super) account: Account,
    pub(super) cluster: PathBuf,
    pub(super) socket: SocketDir,
    pub(super) logs: Logs,
    pub(super) shared_buffers_mib: u32,
}

impl Launch {
    /// The command that becomes the server.
    pub(super) fn command(&self) -> Result<Command, Error> {
        let mut command = self.account.command(&self.binaries.postgres());
        command.arg("-D").arg(&self.cluster);
        for setting in self.settings() {
            command.arg("-c").arg(setting);
        }
        command
            .stdout(Stdio::null())
            .stderr(self.logs.startup_file()?);
        Ok(command)
    }

    fn settings(&self) -> Vec<OsString> {
        let own = [
            format!("port={PORT}"),
            format!("unix_socket_directories={}", self.socket.list_element()),
            format!("shared_buffers={}MB", self.shared_buffers_mib),
        ];
        let fixed = SETTINGS.into_iter().map(OsString::from);
        fixed
            .chain(own.map(OsString::from))
            .chain(self.logs.settings())
            .collect()
    }
}
