//! The directory of the server's socket. It is the only way in: the server listens
//! on no network, and trusts whoever can enter this directory, so that only the
//! account that runs PostgreSQL (and root) can.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use super::{Error, USER_AND_DATABASE, account::Account};

/// The port is a part of the socket's name, no more.
pub(super) const PORT: &str = "5432";
const SOCKET: &str = ".s.PGSQL.5432";
/// The most bytes in a socket's path: macOS has the smallest limit (Linux: 107).
const MAX_PATH_BYTES: usize = 103;

/// The socket's directory.
#[derive(Debug)]
pub(super) struct SocketDir {
    /// Short enough, and without what a connection string or a list cannot hold.
    path: String,
}

impl SocketDir {
    /// Makes the directory: in the data directory if a socket there can be named.
    pub(super) fn prepare(data_dir: &Path, account: &Account) -> Result<Self, Error> {
        let path = usable(&data_dir.join("socket")).unwrap_or_else(|| elsewhere(data_dir));
        account.private_dir(Path::new(&path))?;
        Ok(Self { path })
    }

    pub(super) fn socket(&self) -> PathBuf {
        Path::new(&self.path).join(SOCKET)
    }

    /// Removes what a server that died left. To be called only when none runs: a
    /// stale lock could name a process that is another one now, and a socket there
    /// means that the server has come up.
    pub(super) fn clear(&self) {
        for name in [SOCKET.to_owned(), format!("{SOCKET}.lock")] {
            // Mostly there is none; and what stays, the server complains about.
            let _ = fs::remove_file(Path::new(&self.path).join(name));
        }
    }

    /// As an element of PostgreSQL's list of socket directories.
    pub(super) fn list_element(&self) -> String {
        format!("\"{}\"", self.path.replace('"', "\"\""))
    }

    /// As libpq's keywords and values.
    pub(super) fn database_url(&self) -> String {
        let host = self.path.replace('\\', "\\\\").replace('\'', "\\'");
        format!("host='{host}' port={PORT} user={USER_AND_DATABASE} dbname={USER_AND_DATABASE}")
    }
}

/// A comma would separate hosts in the connection string.
fn usable(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let short = text.len() + "/".len() + SOCKET.len() <= MAX_PATH_BYTES;
    (short && !text.contains(',')).then(|| text.to_owned())
}

/// A short path that is as good as unique to the data directory. Should another
/// user have taken it, that is found out and refused.
fn elsewhere(data_dir: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    data_dir.hash(&mut hasher);
    let parent = if geteuid().is_root() && Path::new("/run").is_dir() {
        "/run"
    } else {
        "/tmp"
    };
    format!("{parent}/voicecall-{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_for_the_list_and_for_the_connection_string() {
        let socket = SocketDir {
            path: r#"/a b/it's "it"\"#.to_owned(),
        };
        assert_eq!(socket.list_element(), r#""/a b/it's ""it""\""#);
        let url = socket.database_url();
        let host = r#"host='/a b/it\'s "it"\\' port"#;
        assert!(url.starts_with(host), "{url}");
    }

    #[test]
    fn goes_elsewhere_when_the_path_would_not_do() {
        assert!(usable(Path::new("/var/lib/voicecall/socket")).is_some());
        assert_eq!(usable(Path::new("/a,b")), None);
        let long = "/".repeat(MAX_PATH_BYTES);
        assert_eq!(usable(Path::new(&long)), None);
        assert_ne!(elsewhere(Path::new("/a")), elsewhere(Path::new("/b")));
        assert!(usable(Path::new(&elsewhere(Path::new(&long)))).is_some());
    }
}
