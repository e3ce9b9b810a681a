//! Settings that are read from files, and read again when the files' content changes.
//!
//! The content is compared, and not the time of the change: files may be swapped by symbolic
//! links, or written again as they were. Several files that belong together, such as a
//! certificate and its key, change together or not at all.
//!
//! It deliberately knows nothing of what the files mean.

use std::{
    fmt, fs,
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Larger files are none of ours.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A value that is replaced as a whole, as it is now. Clones follow the same one.
pub struct Current<T>(watch::Receiver<Version<T>>);

struct Version<T> {
    number: u64,
    value: Option<Arc<T>>,
}

/// Replaces a value for all who follow it.
pub(crate) struct Replace<T>(watch::Sender<Version<T>>);

impl<T> Replace<T> {
    /// Begins without a value.
    #[must_use]
    pub(crate) fn new() -> (Self, Current<T>) {
        let sender = watch::Sender::new(Version {
            number: 0,
            value: None,
        });
        let current = Current(sender.subscribe());
        (Self(sender), current)
    }

    /// Replaces the value.
    pub(crate) fn set(&self, value: T) {
        self.0.send_modify(|version| {
            version.number += 1;
            version.value = Some(Arc::new(value));
        });
    }

    fn value(&self) -> Option<Arc<T>> {
        self.0.borrow().value.clone()
    }
}

impl<T> Current<T> {
    /// The value; `None` before there is one.
    #[must_use]
    pub fn get(&self) -> Option<Arc<T>> {
        self.0.borrow().value.clone()
    }

    /// A number that is another one for each value.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.borrow().number
    }

    /// Waits until the value is replaced; for ever, if nothing replaces it any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The same, of which the present value is no news.
    fn seen(mut self) -> Self {
        self.0.mark_unchanged();
        self
    }

    /// Waits until there is a value.
    pub async fn available(&mut self) {
        let is_lost = self
            .0
            .wait_for(|version| version.value.is_some())
            .await
            .is_err();
        if is_lost {
            std::future::pending::<()>().await;
        }
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Current<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Current(version {})", self.version())
    }
}

/// Makes a value of the files' contents, and of the value before.
type Parse<T> = Box<dyn Fn(&[Vec<u8>], Option<&T>) -> Result<T, String> + Send + Sync>;

/// Files that make up one value.
pub struct Files<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    parse: Parse<T>,
    replace: Replace<T>,
    /// What the value was made of.
    contents: Vec<Vec<u8>>,
    /// Other contents, which are not in use.
    other: Option<Other>,
}

/// What was read of the files, or why they could not be read.
type Contents = Result<Vec<Vec<u8>>, String>;

/// Contents count when they are seen twice: files are not written all at once.
struct Other {
    read: Contents,
    is_reported: bool,
}

impl<T> Files<T> {
    /// Reads the files for the first time. `what` names the value in log lines.
    ///
    /// # Errors
    /// They cannot be read, or `parse` refuses them; a message for the operator.
    pub fn load(
        what: &'static str,
        paths: Vec<PathBuf>,
        parse: impl Fn(&[Vec<u8>], Option<&T>) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<(Self, Current<T>), String> {
        let contents = read(&paths)?;
        let value = parse(&contents, None)?;
        let (replace, current) = Replace::new();
        replace.set(value);
        let current = current.seen();
        let files = Self {
            what,
            paths,
            parse: Box::new(parse),
            replace,
            contents,
            other: None,
        };
        Ok((files, current))
    }

    /// Looks at the files every second, until `stop` is cancelled: other contents are in use when
    /// they are seen twice, or at once when `signal` has changed. What cannot be used leaves the
    /// value as it is.
    pub async fn follow(mut self, mut signal: watch::Receiver<u64>, stop: CancellationToken) {
        let mut can_signal = true;
        loop {
            let is_signalled = tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_EVERY) => false,
                changed = signal.changed(), if can_signal => {
                    can_signal = changed.is_ok();
                    can_signal
                }
            };
            // A file system may let its readers wait.
            let paths = self.paths.clone();
            let reading = tokio::task::spawn_blocking(move || read(&paths));
            tokio::select! {
                () = stop.cancelled() => return,
                read = reading => if let Ok(read) = read { self.consider(read, is_signalled) },
            }
        }
    }

    fn consider(&mut self, read: Contents, is_signalled: bool) {
        if read.as_ref() == Ok(&self.contents) {
            self.other = None;
            return;
        }
        let known = self.other.as_ref().filter(|other| other.read == read);
        let is_reported = known.is_some_and(|other| other.is_reported);
        if is_reported || (known.is_none() && !is_signalled) {
            self.other = Some(Other { read, is_reported });
            return;
        }
        let before = self.replace.value();
        let used = read.clone().and_then(|contents| {
            let value = (self.parse)(&contents, before.as_deref())?;
            Ok((contents, value))
        });
        match used {
            Ok((contents, value)) => {
                self.replace.set(value);
                self.contents = contents;
                self.other = None;
                info!("{} changed, and the new one is in use", self.what);
            }
            Err(reason) => {
                let what = self.what;
                warn!("{what} changed and cannot be used; the old one stays in use: {reason}");
                self.other = Some(Other {
                    read,
                    is_reported: true,
                });
            }
        }
    }
}

fn read(paths: &[PathBuf]) -> Contents {
    let read = |path: &PathBuf| {
        let error = |error: io::Error| format!("cannot read {}: {error}", path.display());
        if !fs::metadata(path).map_err(error)?.is_file() {
            return Err(format!("{} is not a file", path.display()));
        }
        let mut contents = Vec::new();
        let file = fs::File::open(path).map_err(error)?;
        let mut file = file.take(MAX_BYTES + 1);
        file.read_to_end(&mut contents).map_err(error)?;
        if contents.len() as u64 > MAX_BYTES {
            return Err(format!("{} is larger than 4 MiB", path.display()));
        }
        Ok(contents)
    };
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(contents: &[Vec<u8>], _: Option<&u32>) -> Result<u32, String> {
        let texts = contents
            .iter()
            .map(|content| String::from_utf8_lossy(content).into_owned());
        let text: String = texts.collect();
        text.parse().map_err(|_| format!("{text:?} is no number"))
    }

    #[test]
    fn files_change_together_and_bad_ones_leave_the_value_as_it_is() {
        let dir = std::env::temp_dir().join(format!("voicecall-reload-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("it can be made");
        let paths = vec![dir.join("a"), dir.join("b")];
        let write = |a: &str, b: &str| {
            fs::write(&paths[0], a).expect("it can be written");
            fs::write(&paths[1], b).expect("it can be written");
        };
        write("1", "2");
        let (mut files, current) = Files::load("the number", paths.clone(), number).expect("good");
        let look = |files: &mut Files<u32>, is_signalled| {
            files.consider(read(&paths), is_signalled);
            (current.version(), *current.get().expect("there is one"))
        };
        let is_reported = |files: &Files<u32>| files.other.as_ref().map(|other| other.is_reported);
        assert_eq!(look(&mut files, false), (1, 12));
        write("x", "3");
        assert_eq!(look(&mut files, false), (1, 12));
        assert_eq!(is_reported(&files), Some(false));
        assert_eq!(look(&mut files, false), (1, 12));
        assert_eq!(is_reported(&files), Some(true));
        fs::remove_file(&paths[1]).expect("it is there");
        assert_eq!(look(&mut files, true), (1, 12));
        assert_eq!(is_reported(&files), Some(true));
        write("4", "3");
        assert_eq!(look(&mut files, false), (1, 12));
        assert_eq!(look(&mut files, false), (2, 43));
        assert_eq!(is_reported(&files), None);
        write("5", "3");
        assert_eq!(look(&mut files, true), (3, 53));
        // What never ends, or may never begin, is not read.
        for path in ["/dev/zero", "/dev/null", "/tmp"] {
            assert!(read(&[path.into()]).is_err(), "{path}");
        }
        fs::remove_dir_all(&dir).expect("it is there");
        assert!(Files::load("the number", paths, number).is_err());
    }
}
