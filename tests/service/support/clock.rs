//! Wall clocks that a test sets, by libfaketime: of a cluster, and of processes of the
//! service. Monotonic clocks stay true.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// For programs with one thread: it takes no lock, so that signal handlers may read the time.
const SINGLE_THREADED: &str = "libfaketime.so.1";
const MULTI_THREADED: &str = "libfaketimeMT.so.1";

static CLOCKS: AtomicU32 = AtomicU32::new(0);

/// A clock that is ahead of or behind the true time by as much as the test says. All
/// processes that were started with it follow at once.
pub(crate) struct Clock {
    dir: PathBuf,
    libraries: PathBuf,
}

impl Clock {
    /// A clock that shows the true time. `None`: libfaketime is not installed, which is an
    /// error where `CI` is set.
    pub(crate) fn new() -> Option<Self> {
        let Some(libraries) = libraries() else {
            let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!is_ci, "libfaketime is missing: see scripts/install");
            println!("skipped: libfaketime is missing; `scripts/install interop` installs it");
            return None;
        };
        let number = CLOCKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("voicecall-test-clock-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).expect("the directory is new");
        // The account of the cluster reads it too.
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).expect("it is ours");
        let clock = Self { dir, libraries };
        clock.set(0);
        Some(clock)
    }

    /// Sets the clock this many seconds ahead of the true time, or behind it if negative.
    pub(crate) fn set(&self, seconds_ahead: i64) {
        let new = self.dir.join("new");
        fs::write(&new, format!("{seconds_ahead:+}\n")).expect("the disk is not full");
        // At once: nobody reads half a number.
        fs::rename(new, self.file()).expect("it is ours");
    }

    /// Environment variables for a process of the service.
    pub(crate) fn for_service(&self) -> Vec<(&'static str, String)> {
        let mut environment = self.settings();
        environment.push(("LD_PRELOAD", self.library(MULTI_THREADED)));
        environment
    }

    /// Environment variables for `cluster.sh`, which gives the library to PostgreSQL only.
    pub(super) fn for_cluster(&self) -> Vec<(&'static str, String)> {
        let mut environment = self.settings();
        environment.push(("CLOCK_LIBRARY", self.library(SINGLE_THREADED)));
        environment
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.dir.join("offset")
    }

    fn library(&self, name: &str) -> String {
        self.libraries.join(name).display().to_string()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // It is in the temporary directory, and may be gone.
        let _ = fs::remove_dir_all(&self.dir);
        remove_shared_memory();
    }
}

/// Where Debian has the libraries.
fn libraries() -> Option<PathBuf> {
    let architectures = fs::read_dir("/usr/lib").ok()?;
    architectures
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime")))
        .find(|dir| {
            [SINGLE_THREADED, MULTI_THREADED]
                .iter()
                .all(|name| dir.join(name).exists())
        })
}

/// Removes what libfaketime has left of processes that were killed.
fn remove_shared_memory() {
    let Ok(files) = fs::read_dir("/dev/shm") else {
        return;
    };
    for file in files.flatten() {
        let name = file.file_name();
        let pid = name.to_str().and_then(|name| {
            let prefixes = ["faketime_shm_", "sem.faketime_sem_"];
            prefixes.iter().find_map(|prefix| name.strip_prefix(prefix))
        });
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test may have been first.
            let _ = fs::remove_file(file.path());
        }
    }
}
