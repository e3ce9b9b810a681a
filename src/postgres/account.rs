//! The account that PostgreSQL runs as. PostgreSQL refuses to run as root, so a service that
//! runs as root chooses another account, which owns every process and directory of the
//! cluster. For an ordinary user it runs as that user.
//!
//! This module creates no accounts.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    path::Path,
    process::Stdio,
};

use nix::unistd::{Uid, User, getegid, geteuid};
use tokio::process::Command;

use super::Error;

/// The accounts that root chooses from, in order of preference.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];
/// The environment variables that PostgreSQL's programs need. Others may contain secrets, or
/// change what the programs do.
const INHERITED_VARIABLES: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// The account that runs PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct Account {
    name: String,
    uid: u32,
    gid: u32,
    /// Whether it differs from the account of this process.
    switch: bool,
}

impl Account {
    /// The account for the cluster. Root uses the owner of an existing cluster.
    pub(super) fn choose(cluster: &Path) -> Result<Self, Error> {
        let owner = match fs::metadata(cluster) {
            Ok(metadata) => Some(metadata.uid()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("inspect the cluster", cluster)(error)),
        };
        let account = if geteuid().is_root() {
            match owner.and_then(user) {
                Some(user) if !user.uid.is_root() => Self::from(user),
                _ => Self::unprivileged()?,
            }
        } else {
            Self::current()
        };
        match owner {
            Some(owner) if owner != account.uid => Err(Error::WrongOwner {
                path: cluster.to_owned(),
                owner,
                account: account.name,
            }),
            _ => Ok(account),
        }
    }

    fn unprivileged() -> Result<Self, Error> {
        CANDIDATES
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(Self::from)
            .ok_or(Error::NoAccount)
    }

    fn current() -> Self {
        let uid = geteuid().as_raw();
        Self {
            name: user(uid).map_or_else(|| uid.to_string(), |user| user.name),
            uid,
            gid: getegid().as_raw(),
            switch: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs as the account, in a process group of its own: Ctrl-C in a terminal
    /// must not reach it before the service has drained.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        for name in INHERITED_VARIABLES {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        // The service parses messages, so they must be in English.
        command.env("LC_ALL", "C").env("TZ", "UTC");
        // The account may be unable to enter the current directory.
        command.current_dir("/");
        command.process_group(0).stdin(Stdio::null());
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Creates a directory that only the account may use, or checks that an existing one
    /// belongs to the account.
    pub(super) fn private_dir(&self, path: &Path) -> Result<(), Error> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", path)(error));
            }
            _ => {}
        }
        // Of a symbolic link itself, if there is one.
        let metadata = fs::symlink_metadata(path).map_err(Error::io("inspect", path))?;
        if !metadata.is_dir() {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(Error::io("use", path)(error));
        }
        // It belongs to root if it was just created, or by a start that was killed before the
        // next step.
        if self.switch && metadata.uid() == geteuid().as_raw() {
            lchown(path, Some(self.uid), Some(self.gid))
                .map_err(Error::io("change the owner of", path))?;
        } else if metadata.uid() != self.uid {
            return Err(Error::WrongOwner {
                path: path.to_owned(),
                owner: metadata.uid(),
                account: self.name.clone(),
            });
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(Error::io("restrict access to", path))
    }

    /// Checks that the account can enter `path`, by the mode of every directory on the way.
    /// Access control lists are not considered.
    pub(super) fn check_access(&self, path: &Path) -> Result<(), Error> {
        if !self.switch {
            return Ok(());
        }
        let mut components: Vec<&Path> = path.ancestors().collect();
        components.reverse();
        for component in components {
            let metadata = match fs::metadata(component) {
                Ok(metadata) => metadata,
                // It will be created so that the account can enter it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(Error::io("inspect", component)(error)),
            };
            if !self.can_enter(&metadata) {
                return Err(Error::Unreachable {
                    account: self.name.clone(),
                    component: component.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn can_enter(&self, metadata: &fs::Metadata) -> bool {
        let needed = if metadata.uid() == self.uid {
            0o100
        } else if metadata.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        metadata.mode() & needed != 0
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            switch: true,
        }
    }
}

fn user(uid: u32) -> Option<User> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten()
}
