//! The server's log: where it goes, that it stays bounded, and what it says last.
//!
//! PostgreSQL's collector writes it, one file a day of the week, the same day's
//! emptied when it comes round again. The collector bounds days, not bytes, so the
//! supervisor has files that grow too large emptied. What the server says before
//! it has a collector is in `startup.log`, one start's worth.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{Error, account::Account, data_dir::no_follow};

/// A file that is larger is emptied; there are seven of them.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// How much of a log is searched for its last words.
const TAIL_BYTES: u64 = 16 << 10;

/// Where the server's log is.
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

    /// A file for what the server says before its collector runs. Not a pipe: it
    /// needs no reader that outlives us.
    pub(super) fn startup_file(&self) -> Result<File, Error> {
        no_follow()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.startup)
            .map_err(Error::io("write to", &self.startup))
    }

    /// The server's settings that make all this so.
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
            // Statements hold people's data, and errors come back to us anyway.
            "log_min_error_statement=panic",
            "log_error_verbosity=terse",
        ];
        fixed
            .into_iter()
            .map(OsString::from)
            .chain([directory])
            .collect()
    }

    /// Empties files that have grown too large. The collector appends, so that it
    /// goes on at the new end.
    pub(super) fn keep_bounded(&self) {
        for (path, metadata) in self.files() {
            if metadata.len() <= MAX_FILE_BYTES {
                continue;
            }
            let emptied = no_follow()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(0));
            let path = path.display();
            match emptied {
                Ok(()) => warn!(%path, "truncated PostgreSQL's log, which had grown too large"),
                Err(error) => warn!(%path, %error, "cannot truncate PostgreSQL's log"),
            }
        }
    }

    /// Why the server ended, as far as it said.
    pub(super) fn last_words(&self) -> String {
        let startup = tail(&self.startup);
        let collected = if startup.contains("logging collector") {
            self.newest().map(|path| tail(&path)).unwrap_or_default()
        } else {
            // Whatever is in the collector's files, it is of an earlier start.
            String::new()
        };
        last_fatal(&collected)
            .or_else(|| last_fatal(&startup))
            .or_else(|| startup.lines().last())
            .unwrap_or("it gave no reason")
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

/// The end of a file; nothing, if it cannot be read.
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
