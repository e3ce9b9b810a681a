//! How the server is started: its programs, account, directories and settings. The settings are
//! on the command line, which overrides the files in the cluster, so that each release of the
//! service brings its own. This module starts no process; `server` does.

use std::{ffi::OsString, path::PathBuf, process::Stdio};

use tokio::process::Command;

use super::{
    Binaries, Error,
    account::Account,
    logs::Logs,
    socket::{PORT, SocketDir},
};

/// The settings that do not depend on the machine: for durability above all, then for many
/// short statements with a modest share of the machine.
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
    // A growing table is analyzed soon, because its lists are planned by these statistics.
    "autovacuum_naptime=10s",
    // For short statements, compiling costs more than it saves.
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
    // The service parses the messages about failures.
    "lc_messages=C",
    // After the crash of a backend the server recovers by itself, which is faster than a
    // restart by the supervisor.
    "restart_after_crash=on",
];

/// Everything that is needed to start the server. It is the same for every restart.
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
    /// The command of the server process.
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
