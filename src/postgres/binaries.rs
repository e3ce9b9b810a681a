//! Finds the programs of a PostgreSQL server on the machine. It installs nothing, and does not
//! need the client programs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Error;

/// The oldest major version that is supported.
const MINIMUM: u32 = 14;

/// Where packages install servers: the parent directory, the prefix of the version's
/// directory, and the subdirectory with the programs.
const WELL_KNOWN: [(&str, &str, &str); 8] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/usr/local", "pgsql", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// The programs of one PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// The newest server on the machine, or the one in `explicit`; if that cannot be used,
    /// there is no fallback.
    ///
    /// # Errors
    ///
    /// [`Error::NoBinaries`], or [`Error::BinDir`] about `explicit`.
    pub fn find(explicit: Option<&Path>) -> Result<Self, Error> {
        Self::find_for(explicit, None)
    }

    /// The same, but of major version `major`: no other version can read a cluster of it, and
    /// installing a newer server must not make the data inaccessible.
    pub(super) fn find_for(explicit: Option<&Path>, major: Option<u32>) -> Result<Self, Error> {
        let found = match explicit {
            Some(dir) => vec![in_directory(dir)?],
            None => search(major),
        };
        match (newest(&found, major), newest(&found, None), major) {
            (Some(binaries), _, _) => Ok(binaries),
            (None, Some(other), Some(needed)) => Err(Error::WrongMajor {
                needed,
                found: format!("{} (in {})", other.major, other.dir.display()),
            }),
            _ => Err(Error::NoBinaries { minimum: MINIMUM }),
        }
    }

    /// The directory of the programs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The major version, such as 15.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }
}

fn newest(found: &[Binaries], major: Option<u32>) -> Option<Binaries> {
    found
        .iter()
        .filter(|binaries| major.is_none_or(|major| binaries.major == major))
        .max_by_key(|binaries| binaries.major)
        .cloned()
}

fn in_directory(dir: &Path) -> Result<Binaries, Error> {
    let refuse = |reason| Error::BinDir {
        dir: dir.to_owned(),
        reason,
    };
    let dir = fs::canonicalize(dir).map_err(|error| refuse(error.to_string()))?;
    let binaries = inspect(dir).map_err(refuse)?;
    if binaries.major < MINIMUM {
        return Err(refuse(format!(
            "it has PostgreSQL {}, but {MINIMUM} or newer is needed",
            binaries.major
        )));
    }
    Ok(binaries)
}

/// Searches the well-known directories first: searching `PATH` runs a program, and seldom
/// finds more.
fn search(major: Option<u32>) -> Vec<Binaries> {
    let mut found = usable(well_known());
    if newest(&found, major).is_none() {
        found.extend(usable(on_path()));
    }
    found
}

fn usable(dirs: Vec<PathBuf>) -> Vec<Binaries> {
    dirs.into_iter()
        .filter_map(|dir| inspect(dir).ok())
        .filter(|binaries| binaries.major >= MINIMUM)
        .collect()
}

fn well_known() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for (parent, prefix, suffix) in WELL_KNOWN {
        // No machine has all of them.
        let Ok(entries) = fs::read_dir(parent) else {
            continue;
        };
        dirs.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .map(|entry| entry.path().join(suffix)),
        );
    }
    dirs
}

fn on_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        dirs.push(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        ));
    }
    dirs
}

fn inspect(dir: PathBuf) -> Result<Binaries, String> {
    for program in ["postgres", "initdb"] {
        if !dir.join(program).is_file() {
            return Err(format!("it has no `{program}`"));
        }
    }
    let output = Command::new(dir.join("postgres"))
        .arg("--version")
        .output()
        .map_err(|error| format!("its `postgres` cannot be run: {error}"))?;
    let version = String::from_utf8_lossy(&output.stdout);
    let major = parse_major(&version)
        .ok_or_else(|| format!("its `postgres --version` prints {:?}", version.trim()))?;
    Ok(Binaries { dir, major })
}

/// Parses `postgres (PostgreSQL) 15.18 (Debian 15.18-0)`; the number may also be `17beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once(") ")?;
    let digits = number
        .split(|character: char| !character.is_ascii_digit())
        .next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(parse_major(debian), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 17beta1"), Some(17));
        assert_eq!(parse_major("postgres (PostgreSQL) devel"), None);
        assert_eq!(parse_major(""), None);
    }

    #[test]
    fn prefers_the_newest_and_keeps_to_the_requested_major() {
        let found: Vec<Binaries> = [15, 17, 16]
            .map(|major| Binaries {
                dir: PathBuf::from("/"),
                major,
            })
            .into();
        let major = |requested| newest(&found, requested).map(|binaries| binaries.major);
        assert_eq!(major(None), Some(17));
        assert_eq!(major(Some(15)), Some(15));
        assert_eq!(major(Some(14)), None);
    }

    #[test]
    fn an_explicit_directory_has_no_fallback() {
        let error = Binaries::find(Some(Path::new("/etc"))).expect_err("no server there");
        assert!(matches!(error, Error::BinDir { .. }), "{error}");
    }
}
