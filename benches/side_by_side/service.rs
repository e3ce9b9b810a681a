//! Servers as separate processes: voicecall, and those that it is compared with.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Command,
};

use crate::{
    Result,
    guardian::{As, Guarded},
};

/// A server that writes its address to standard error.
pub(crate) struct Service {
    process: Guarded,
    /// The URL of the server.
    pub(crate) endpoint: String,
}

impl Service {
    /// `voicecall serve` with these environment variables. It is stopped gracefully, so that an
    /// embedded database is too.
    pub(crate) fn voicecall(environment: &[(&str, &str)]) -> Result<Self> {
        let program = Path::new(env!("CARGO_BIN_EXE_voicecall"));
        Self::run(program, environment)
    }

    /// Another build of it, on a database.
    pub(crate) fn of(program: &Path, database_url: &str) -> Result<Self> {
        Self::run(program, &[("DATABASE_URL", database_url)])
    }

    fn run(program: &Path, environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("serve");
        command.env("VOICECALL_LISTEN", "127.0.0.1:0");
        command.env("VOICECALL_LOG_FORMAT", "human");
        command.env_remove("DATABASE_URL");
        command.envs(environment.iter().copied());
        Self::start(&command)
    }

    /// The same on a database with these further environment variables, for clients with what is
    /// in this directory, if there are any.
    pub(crate) fn secured(
        database_url: &str,
        secured: &[(&str, String)],
        secrets: &Path,
    ) -> Result<Self> {
        let mut environment = vec![("DATABASE_URL", database_url)];
        environment.extend(secured.iter().map(|(name, value)| (*name, value.as_str())));
        let mut service = Self::voicecall(&environment)?;
        if !secured.is_empty() {
            service.endpoint.push_str(&secrets.display().to_string());
        }
        Ok(service)
    }

    /// `voicecall serve` on a database.
    pub(crate) fn on(database_url: &str) -> Result<Self> {
        Self::voicecall(&[("DATABASE_URL", database_url)])
    }

    /// One of the servers in this program.
    pub(crate) fn ourselves(role: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(role);
        Self::start(&command)
    }

    fn start(command: &Command) -> Result<Self> {
        let mut process = Guarded::start(command, As::Us, "TERM", Path::new(""))?;
        let mut lines = BufReader::new(process.stderr()?).lines();
        let mut log = String::new();
        for line in lines.by_ref() {
            let line = line?;
            if let Some((_, rest)) = line.split_once("listening on ") {
                let address = rest.split([',', ' ']).next().unwrap_or_default();
                let endpoint = format!("http://{address}");
                // The pipe is drained, because a process that writes to a full pipe blocks.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { process, endpoint });
            }
            log.push_str(&line);
            log.push('\n');
        }
        Err(format!("the server ended: {log}").into())
    }

    /// The memory that it uses, in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        self.status_mib("VmRSS:")
    }

    /// The most memory that it has used, in MiB.
    pub(crate) fn peak_mib(&self) -> Result<f64> {
        self.status_mib("VmHWM:")
    }

    fn status_mib(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: f64 = line
            .and_then(|line| line.split_whitespace().next())
            .ok_or_else(|| format!("no {name}"))?
            .parse()?;
        Ok(kib / 1024.0)
    }
}
