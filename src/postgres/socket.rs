//! The directory of the server's socket. The server listens on no network, and trusts every
//! client that can enter this directory; only the account that runs PostgreSQL and root can.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use super::{Error, USER_AND_DATABASE, account::Account};

/// The port is only part of the socket's name.
pub(super) const PORT: &str = "5432";
const SOCKET: &str = ".s.PGSQL.5432";
/// The most bytes in the path of a socket. macOS has the smallest limit; Linux allows 107.
const MAX_PATH_BYTES: usize = 103;

/// The socket's directory.
#[derive(Debug)]
pub(super) struct SocketDir {
    /// Short enough for a socket, and without characters that a connection string or a list
    /// cannot contain.
    path: String,
}

impl SocketDir {
    /// Creates the directory: in the data directory if the path of a socket there is usable.
    pub(super) fn prepare(data_dir: &Path, account: &Account) -> Result<Self, Error> {
        let path = usable(&data_dir.join("socket")).unwrap_or_else(|| fallback_path(data_dir));
        account.private_dir(Path::new(&path))?;
        Ok(Self { path })
    }

    pub(super) fn socket(&self) -> PathBuf {
        Path::new(&self.path).join(SOCKET)
    }

    /// Removes the files that a dead server has left. Must be called only while no server runs:
    /// the process id in a stale lock may be another process's by now, and a socket means that
    /// the server has started.
    pub(super) fn clear(&self) {
        for name in [SOCKET.to_owned(), format!("{SOCKET}.lock")] {
            // Usually there is none; if one cannot be removed, the server reports it.
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

/// The path as text, if it is short enough and has no comma, which would separate hosts in the
/// connection string.
fn usable(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let short = text.len() + "/".len() + SOCKET.len() <= MAX_PATH_BYTES;
    (short && !text.contains(',')).then(|| text.to_owned())
}

/// A short path that is practically unique to the data directory. A directory there that
/// belongs to another user is refused.
fn fallback_path(data_dir: &Path) -> String {
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
    fn falls_back_when_the_path_is_not_usable() {
        assert!(usable(Path::new("/var/lib/voicecall/socket")).is_some());
        assert_eq!(usable(Path::new("/a,b")), None);
        let long = "/".repeat(MAX_PATH_BYTES);
        assert_eq!(usable(Path::new(&long)), None);
        assert_ne!(
            fallback_path(Path::new("/a")),
            fallback_path(Path::new("/b"))
        );
        assert!(usable(Path::new(&fallback_path(Path::new(&long)))).is_some());
    }
}
