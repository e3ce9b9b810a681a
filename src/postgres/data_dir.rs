//! The data directory: where it is, the names in it, and the lock that gives an instance
//! exclusive access. The modules of its parts own their contents.
//!
//! For a service that runs as root, the directory belongs to root, and others can enter it but
//! not list it: the account that runs PostgreSQL must reach its own parts of the directory, but
//! must not be able to replace them.

use std::{
    env,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf, absolute},
    process, thread,
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sys::signal::kill,
    unistd::{Pid, geteuid},
};

use super::Error;

/// The name of the cluster in the data directory.
pub(super) const CLUSTER: &str = "postgres";
const LOCK: &str = "lock";
/// How often, and at what interval, to try a lock whose recorded holder has ended.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const ROOT_DATA_DIR: &str = "/var/lib/voicecall";

/// The data directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it does not exist, and locks it.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        create(&path).map_err(Error::io("create the data directory", &path))?;
        let lock = lock(&path)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.path.join(CLUSTER)
    }
}

/// The chosen directory or the default, absolute and without symbolic links. It need not
/// exist.
pub(super) fn resolve(chosen: Option<PathBuf>) -> Result<PathBuf, Error> {
    let path = chosen.map_or_else(default_path, Ok)?;
    let path = absolute(&path).map_err(Error::io("find the data directory", &path))?;
    let existing = path
        .ancestors()
        .find_map(|ancestor| Some((ancestor, fs::canonicalize(ancestor).ok()?)));
    let resolved = existing.and_then(|(ancestor, real)| {
        let rest = path.strip_prefix(ancestor).ok()?;
        // Joining an empty path would add a slash.
        let whole = rest.as_os_str().is_empty();
        Some(if whole { real } else { real.join(rest) })
    });
    Ok(resolved.unwrap_or(path))
}

fn default_path() -> Result<PathBuf, Error> {
    if geteuid().is_root() {
        return Ok(PathBuf::from(ROOT_DATA_DIR));
    }
    let from_env = |name| env::var_os(name).map(PathBuf::from);
    from_env("XDG_DATA_HOME")
        // The specification says to ignore a relative one.
        .filter(|path| path.is_absolute())
        .or_else(|| from_env("HOME").map(|home| home.join(".local/share")))
        .map(|parent| parent.join("voicecall"))
        .ok_or(Error::NoHome)
}

/// Creates the directory and its parents, with modes that do not depend on the umask.
fn create(path: &Path) -> io::Result<()> {
    let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|ancestor| !ancestor.exists())
        .collect();
    for dir in missing.into_iter().rev() {
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::set_permissions(dir, Permissions::from_mode(mode))?;
        dir.parent().map_or(Ok(()), sync_dir)?;
    }
    let_others_enter(path)
}

/// Lets the account enter an empty directory of root's, such as `mktemp -d` creates. The mode
/// of a directory that is not empty is left alone.
fn let_others_enter(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let closed = metadata.mode() & 0o001 == 0;
    if geteuid().is_root() && metadata.uid() == 0 && closed && fs::read_dir(path)?.next().is_none()
    {
        let opened = Permissions::from_mode(metadata.mode() | 0o011);
        fs::set_permissions(path, opened)?;
    }
    Ok(())
}

/// The file is never removed: otherwise two instances could lock different files.
fn lock(data_dir: &Path) -> Result<File, Error> {
    let path = data_dir.join(LOCK);
    let mut file = no_follow()
        .read(true)
        .write(true)
        .create(true)
        .mode(0o644)
        .open(&path)
        .map_err(Error::io("open the lock", &path))?;
    let mut attempts = 1;
    while let Err(refusal) = file.try_lock() {
        let TryLockError::WouldBlock = refusal else {
            return Err(Error::io("acquire the lock", &path)(refusal.into()));
        };
        let holder = holder(&mut file);
        if attempts == LOCK_ATTEMPTS || holder.is_some_and(is_another) {
            return Err(Error::Locked {
                data_dir: data_dir.to_owned(),
                holder,
            });
        }
        attempts += 1;
        thread::sleep(LOCK_PAUSE);
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(format!("{}\n", process::id()).as_bytes()))
        .map_err(Error::io("write to the lock", &path))?;
    Ok(file)
}

/// The process that is recorded in the file as the holder of the lock.
fn holder(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether that is another running process. Otherwise the lock is held only by a child of an
/// instance that has ended, for the moment between fork and exec.
fn is_another(holder: i32) -> bool {
    Pid::from_raw(holder) != Pid::this() && kill(Pid::from_raw(holder), None).is_ok()
}

/// Options that refuse a symbolic link: neither the account nor the owner of the directory may
/// redirect what root writes.
pub(super) fn no_follow() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(OFlag::O_NOFOLLOW.bits());
    options
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
