//! What runs beside a measurement: another driver that watches or reads slowly, or psql in a
//! transaction. It ends with its standard input.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::{Result, postgres::Postgres};

/// The kind of companion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Companion {
    /// None.
    Nobody,
    /// One watcher of everything.
    Watcher,
    /// 10,000 watchers, each of one member of staff, 100 on a connection.
    StaffWatchers,
    /// A client that reads a snapshot, one chunk per second.
    SlowSnapshot,
    /// A client that reads an export, one chunk per second.
    SlowExport,
    /// A foreign transaction that stays open, with its snapshot.
    OpenTransaction,
}

impl Companion {
    /// Starts it, and waits until it is at work.
    pub(crate) fn start(
        self,
        endpoint: &str,
        postgres: &Postgres,
        database: &str,
    ) -> Result<Option<Running>> {
        let role: &[&str] = match self {
            Self::Nobody => return Ok(None),
            Self::Watcher => &["watch", "--watchers", "1"],
            Self::StaffWatchers => &["watch", "--watchers", "10000", "--of-staff"],
            Self::SlowSnapshot => &["transfer", "--what", "slow-snapshot"],
            Self::SlowExport => &["transfer", "--what", "slow-export"],
            Self::OpenTransaction => {
                return Running::transaction(postgres.psql(database)).map(Some);
            }
        };
        Running::start(role, endpoint).map(Some)
    }
}

/// A driver, or psql, at work.
pub(crate) struct Running {
    process: Child,
    /// Not read any further, but kept open for as long as the process writes.
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Starts a driver that says when it is at work.
    pub(crate) fn start(role: &[&str], endpoint: &str) -> Result<Self> {
        let mut driver = Command::new(std::env::current_exe()?);
        driver.args(role).args(["--endpoint", endpoint]);
        if role[0] == "watch" {
            driver.args(["--hold", "--protocol", "voicecall", "--seconds", "1"]);
        }
        Self::when_it_says(&mut driver, "", "watching")
    }

    /// Begins a transaction that has an id and a snapshot, and leaves it open.
    fn transaction(mut psql: Command) -> Result<Self> {
        let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ;\n\
            SELECT 'open' FROM pg_current_xact_id();\n";
        Self::when_it_says(&mut psql, sql, "open")
    }

    fn when_it_says(command: &mut Command, input: &str, word: &str) -> Result<Self> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let stdin = process.stdin.as_mut().ok_or("no pipe")?;
        stdin.write_all(input.as_bytes())?;
        let output = process.stdout.take().ok_or("no pipe")?;
        let mut running = Self {
            process,
            output: BufReader::new(output),
        };
        let mut line = String::new();
        running.output.read_line(&mut line)?;
        match line.trim() == word {
            true => Ok(running),
            false => Err("what runs beside could not begin".into()),
        }
    }

    /// Ends it; an error if it ended before.
    pub(crate) fn finish(mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("what ran beside ended: {status}").into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // There is nothing to do if it fails.
        let _ = self.process.wait();
    }
}
