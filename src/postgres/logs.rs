//! The server's log: where it is, that its size is bounded, and its last error.
//!
//! PostgreSQL's logging collector writes one file for each day of the week, and truncates it a
//! week later. The collector does not limit the size of a file, so the supervisor truncates
//! files that have grown too large. Messages from before the collector runs are in
//! `startup.log`, which has those of the last start only.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{Error, account::Account, data_dir::no_follow};

/// A larger file is truncated; there are seven of them.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// How much of a log is searched for the last error.
const TAIL_BYTES: u64 = 16 << 10;

/// The files of the server's log.
#[derive(Debug)]
pub(super) struct Logs {
    dir: PathBuf,
    startup: PathBuf,
}

impl Logs {
    pub(super) fn prepare(data_dir: &Path, account: &Account) -> Result<Self, Error> {
        let dir = data_dir.join("log");
        account.private_dir(&dir)?;
        let startup = data_dir.join("startup.log");
        Ok(Self { dir, startup })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file for the messages before the collector runs. It is not a pipe, because a pipe needs
    /// a reader for as long as the server runs, and the server may outlive this process.
    pub(super) fn startup_file(&self) -> Result<File, Error> {
        no_follow()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.startup)
            .map_err(Error::io("write to", &self.startup))
    }

    /// The settings of the server for its log.
    pub(super) fn settings(&self) -> Vec<OsString> {
        let mut directory = OsString::from("log_directory=");
        directory.push(&self.dir);
        let fixed = [
            "logging_collector=on",
            "log_destination=stderr",
            "log_filename=postgres-%a.log",
            "log_file_mode=0600",
            "log_rotation_age=1d",
            "log_rotation_size=0",
            "log_truncate_on_rotation=on",
            "log_line_prefix=%m [%p] ",
            // Statements contain personal data, and clients receive the errors anyway.
            "log_min_error_statement=panic",
            "log_error_verbosity=terse",
        ];
        fixed
            .into_iter()
            .map(OsString::from)
            .chain([directory])
            .collect()
    }

    /// Truncates files that have grown too large. The collector appends, so it continues at the
    /// new end.
    pub(super) fn truncate_large(&self) {
        for (path, metadata) in self.files() {
            if metadata.len() <= MAX_FILE_BYTES {
                continue;
            }
            let truncated = no_follow()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(0));
            let path = path.display();
            match truncated {
                Ok(()) => warn!(%path, "truncated PostgreSQL's log, which had grown too large"),
                Err(error) => warn!(%path, %error, "cannot truncate PostgreSQL's log"),
            }
        }
    }

    /// Why the server ended, according to its log.
    pub(super) fn last_error(&self) -> String {
        let startup = tail(&self.startup);
        let collected = if startup.contains("logging collector") {
            self.newest().map(|path| tail(&path)).unwrap_or_default()
        } else {
            // The collector did not run, so its files are from earlier starts.
            String::new()
        };
        last_fatal(&collected)
            .or_else(|| last_fatal(&startup))
            .or_else(|| startup.lines().last())
            .unwrap_or("its log gives no reason")
            .to_owned()
    }

    fn newest(&self) -> Option<PathBuf> {
        let (path, _) = self
            .files()
            .max_by_key(|(_, metadata)| metadata.modified().ok())?;
        Some(path)
    }

    fn files(&self) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
            .filter(|(_, metadata)| metadata.is_file())
    }
}

fn last_fatal(log: &str) -> Option<&str> {
    log.lines().rev().find_map(|line| {
        let start = line.find("FATAL:").or_else(|| line.find("PANIC:"))?;
        line.get(start..)
    })
}

/// The end of a file; empty if it cannot be read.
fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = no_follow().read(true).open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::last_fatal;

    #[test]
    fn finds_the_last_fatal_message() {
        let log = "a [1] LOG:  up\na [1] FATAL:  first\na [1] FATAL:  second\na [1] LOG:  down\n";
        assert_eq!(last_fatal(log), Some("FATAL:  second"));
        assert_eq!(last_fatal("LOG:  fine\n"), None);
    }
}
