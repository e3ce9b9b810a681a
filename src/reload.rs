//! Settings that are read from files, and read again when the files' content changes.
//!
//! The content is compared, and not the time of the change: files may be swapped by symbolic
//! links, or written again as they were. Several files that belong together, such as a
//! certificate and its key, change together or not at all.
//!
//! It deliberately knows nothing of what the files mean.

use std::{fmt, fs, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Larger files are none of ours.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A value that is replaced as a whole, as it is now. Clones follow the same one.
pub struct Current<T>(watch::Receiver<Version<T>>);

struct Version<T> {
    number: u64,
    value: Option<Arc<T>>,
}

/// Replaces a value for all who follow it.
pub struct Replace<T>(watch::Sender<Version<T>>);

impl<T> Replace<T> {
    /// Begins without a value.
    #[must_use]
    pub fn new() -> (Self, Current<T>) {
        let sender = watch::Sender::new(Version {
            number: 0,
            value: None,
        });
        let current = Current(sender.subscribe());
        (Self(sender), current)
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
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
    /// Why they could not be used when they were last looked at.
    failure: Option<Failure>,
}

/// What was read of the files, or why they could not be read.
type Contents = Result<Vec<Vec<u8>>, String>;

/// A failure is reported when it is seen twice: files are not written all at once.
struct Failure {
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
        let files = Self {
            what,
            paths,
            parse: Box::new(parse),
            replace,
            contents,
            failure: None,
        };
        Ok((files, current))
    }

    /// Looks at the files every two seconds, and whenever `signal` changes, until `stop` is
    /// cancelled. Files that cannot be used leave the value as it is.
    pub async fn follow(mut self, mut signal: watch::Receiver<u64>, stop: CancellationToken) {
        let mut can_signal = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
                changed = signal.changed(), if can_signal => can_signal = changed.is_ok(),
            }
            self.look();
        }
    }

    fn look(&mut self) {
        let read = read(&self.paths);
        if read.as_ref() == Ok(&self.contents) {
            self.failure = None;
            return;
        }
        let before = self.replace.value();
        let contents = match read {
            Ok(contents) => contents,
            Err(reason) => return self.fail(Err(reason.clone()), &reason),
        };
        match (self.parse)(&contents, before.as_deref()) {
            Ok(value) => {
                self.replace.set(value);
                self.contents = contents;
                self.failure = None;
                info!("{} changed and is in use", self.what);
            }
            Err(reason) => self.fail(Ok(contents), &reason),
        }
    }

    fn fail(&mut self, read: Contents, reason: &str) {
        match &mut self.failure {
            Some(failure) if failure.read == read => {
                if !failure.is_reported {
                    failure.is_reported = true;
                    let what = self.what;
                    warn!("{what} changed and cannot be used; the old one stays: {reason}");
                }
            }
            _ => {
                self.failure = Some(Failure {
                    read,
                    is_reported: false,
                });
            }
        }
    }
}

fn read(paths: &[PathBuf]) -> Contents {
    let read = |path: &PathBuf| {
        let contents = fs::metadata(path).and_then(|metadata| {
            if metadata.len() > MAX_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "it is larger than 4 MiB",
                ));
            }
            fs::read(path)
        });
        contents.map_err(|error| format!("cannot read {}: {error}", path.display()))
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
        let seen = |files: &mut Files<u32>| {
            files.look();
            (current.version(), *current.get().expect("there is one"))
        };
        assert_eq!(seen(&mut files), (1, 12));
        write("x", "3");
        assert_eq!(seen(&mut files), (1, 12));
        assert!(
            files
                .failure
                .as_ref()
                .is_some_and(|failure| !failure.is_reported)
        );
        assert_eq!(seen(&mut files), (1, 12));
        assert!(
            files
                .failure
                .as_ref()
                .is_some_and(|failure| failure.is_reported)
        );
        fs::remove_file(&paths[1]).expect("it is there");
        assert_eq!(seen(&mut files), (1, 12));
        write("4", "3");
        assert_eq!(seen(&mut files), (2, 43));
        assert!(files.failure.is_none());
        fs::remove_dir_all(&dir).expect("it is there");
        assert!(Files::load("the number", paths, number).is_err());
    }
}
