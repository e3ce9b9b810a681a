//! The account that PostgreSQL runs as. PostgreSQL refuses to run as root, so that
//! root picks another one, and every process and directory of the cluster is that
//! one's. An ordinary user runs it as itself.
//!
//! It makes no accounts, and takes root's word for the ones that it finds.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    path::Path,
    process::Stdio,
};

use nix::unistd::{Uid, User, getegid, geteuid};
use tokio::process::Command;

use super::Error;

/// The accounts that root picks from, the best first.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];
/// What PostgreSQL's programs need of our environment. The rest may hold secrets,
/// or variables that change what they do.
const PASSED_ON: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// Who runs PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct Account {
    name: String,
    uid: u32,
    gid: u32,
    /// Whether it is another one than ours.
    switch: bool,
}

impl Account {
    /// The account for the cluster: as root its owner, if there is one already.
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
            Self::ours()
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

    fn ours() -> Self {
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

    /// A command that will run as the account, in a process group of its own: Ctrl-C
    /// in a terminal must not reach it before the service has drained.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        for name in PASSED_ON {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        // Messages are read, so they must be in English.
        command.env("LC_ALL", "C").env("TZ", "UTC");
        // Ours may be one that the account cannot enter.
        command.current_dir("/");
        command.process_group(0).stdin(Stdio::null());
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes a directory that only the account may use, or checks that one that is
    /// there is the account's.
    pub(super) fn private_dir(&self, path: &Path) -> Result<(), Error> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", path)(error));
            }
            _ => {}
        }
        // Of the link, if someone put one there.
        let metadata = fs::symlink_metadata(path).map_err(Error::io("inspect", path))?;
        if !metadata.is_dir() {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(Error::io("use", path)(error));
        }
        // Ours: just made, or made by a start that was killed before the next step.
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

    /// Checks that the account may enter `path`, by the mode of every directory on
    /// the way. Access control lists are not looked at.
    pub(super) fn must_enter(&self, path: &Path) -> Result<(), Error> {
        if !self.switch {
            return Ok(());
        }
        let mut components: Vec<&Path> = path.ancestors().collect();
        components.reverse();
        for component in components {
            let metadata = match fs::metadata(component) {
                Ok(metadata) => metadata,
                // It will be made, and enterable.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(Error::io("inspect", component)(error)),
            };
            if !self.may_enter(&metadata) {
                return Err(Error::Unreachable {
                    account: self.name.clone(),
                    component: component.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn may_enter(&self, metadata: &fs::Metadata) -> bool {
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
