//! Processes and directories that are removed when this process ends, however it ends.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::Result;

/// Where directories are created: not in a file system in memory, where every sync would be
/// free.
static ROOT: OnceLock<PathBuf> = OnceLock::new();
static DIRS: AtomicU32 = AtomicU32::new(0);

/// Sets where directories are created, once.
pub(crate) fn set_root(root: PathBuf) {
    // The first caller decides.
    let _ = ROOT.set(root);
}

/// The account that a process runs as.
#[derive(Clone, Copy)]
pub(crate) enum As {
    /// The account that runs the benchmark.
    Us,
    /// An ordinary user if the benchmark runs as root: PostgreSQL refuses to run as root.
    Ordinary,
}

/// A new directory, owned by the account that the process will run as.
pub(crate) fn directory(owner: As) -> Result<PathBuf> {
    let number = DIRS.fetch_add(1, Ordering::Relaxed);
    let root = ROOT.get().ok_or("no place for directories")?;
    let dir = root.join(format!("voicecall-bench-{}-{number}", std::process::id()));
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o700))?;
    if let As::Ordinary = owner
        && let Some((uid, gid)) = ordinary_account()?
    {
        chown(&dir, Some(uid), Some(gid))?;
    }
    Ok(dir)
}

/// A command that runs as `who`.
pub(crate) fn command(program: &Path, who: As) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let As::Ordinary = who
        && let Some((uid, gid)) = ordinary_account()?
    {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// A running process; stopped, and its directory removed, when this is dropped
/// or when this process ends.
pub(crate) struct Guarded {
    guardian: Child,
    control: Option<ChildStdin>,
}

impl Guarded {
    /// Starts a command that is stopped by `signal`. Its standard error goes to a file in `dir`,
    /// or to this process if there is no directory.
    pub(crate) fn start(command: &Command, who: As, signal: &str, dir: &Path) -> Result<Self> {
        let says = match dir.as_os_str().is_empty() {
            true => Stdio::piped(),
            false => File::create(dir.join("log"))?.into(),
        };
        let mut guardian = self::command(Path::new("sh"), who)?;
        guardian.args(["-c", include_str!("guardian.sh"), "guardian", signal]);
        guardian.arg(dir).arg(command.get_program());
        guardian.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => guardian.env(name, value),
                None => guardian.env_remove(name),
            };
        }
        // Ctrl-C is for us; the guardian acts when we have ended.
        guardian.process_group(0);
        guardian.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut guardian = guardian.stderr(says).spawn()?;
        let control = guardian.stdin.take();
        Ok(Self { guardian, control })
    }

    /// What the process writes to its standard error.
    pub(crate) fn stderr(&mut self) -> Result<ChildStderr> {
        Ok(self.guardian.stderr.take().ok_or("it goes elsewhere")?)
    }

    /// The guardian's child: the process itself.
    pub(crate) fn pid(&self) -> Result<u32> {
        let task = format!("/proc/{0}/task/{0}/children", self.guardian.id());
        let children = fs::read_to_string(task)?;
        let first = children.split(' ').next().ok_or("it has ended")?;
        Ok(first.parse()?)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.control = None;
        // It has nobody else to wait for it; there is nothing to do if it fails.
        let _ = self.guardian.wait();
    }
}

/// The account for PostgreSQL if the benchmark runs as root.
fn ordinary_account() -> Result<Option<(u32, u32)>> {
    if !nix::unistd::Uid::effective().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = nix::unistd::User::from_name(name)? {
            return Ok(Some((user.uid.as_raw(), user.gid.as_raw())));
        }
    }
    Err("there is no account to run PostgreSQL as".into())
}
