//! A directory of a test's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::request_id;

/// A directory that is removed with its files when this is dropped.
pub(crate) struct Dir(PathBuf);

impl Dir {
    /// A new directory; `name` says what for.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("voicecall-{name}-{}", request_id()));
        fs::create_dir(&path).expect("it is new");
        Self(path)
    }

    /// The path of the file with this name, whether there is one or not.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes a file, or replaces it, and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        // As editors and Kubernetes do: never half a file.
        let new = self.0.join(format!("{name}.new"));
        fs::write(&new, text).expect("it can be written");
        fs::rename(new, self.0.join(name)).expect("it can be renamed");
        self.path(name)
    }
}

impl AsRef<Path> for Dir {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Left for the system to clear, if it cannot be removed.
        let _ = fs::remove_dir_all(&self.0);
    }
}
