//! Where the bearer token comes from, and how it is read.
//!
//! No part of a token is in an error or in the output of `Debug`, and neither are the arguments of
//! a command, because people put secrets there.

use std::{
    env, fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{io::AsyncReadExt, process::Command, task::spawn_blocking, time::timeout};
use tonic::metadata::{Ascii, MetadataValue};

/// The longest output of a command, and the longest file.
const MAX_BYTES: u64 = 16 * 1024;
/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// The value of the `authorization` header, marked as sensitive: it stays out of the compression
/// tables of both ends, and of debug output.
pub(super) type Bearer = MetadataValue<Ascii>;

/// Where the bearer token comes from. White space around it is ignored.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// The token itself, which never changes.
    Text(String),
    /// A file. It is checked again when a request is made, at most once a second, and when the
    /// service refuses the token.
    File(PathBuf),
    /// A program that writes the token to its standard output: at most 16 KiB, within 10
    /// seconds. It is run when a token is first needed and again when the service refuses it,
    /// without a shell.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// An environment variable of this process.
    Variable(String),
}

/// Why there is no token. The message names the file, the program or the variable, and nothing of
/// its contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the token from {origin}: {reason}")]
pub struct TokenError {
    origin: String,
    reason: String,
}

impl From<String> for TokenSource {
    fn from(token: String) -> Self {
        Self::Text(token)
    }
}

impl From<&str> for TokenSource {
    fn from(token: &str) -> Self {
        Self::Text(token.to_owned())
    }
}

impl fmt::Display for TokenSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => write!(formatter, "the settings"),
            Self::File(path) => write!(formatter, "the file {}", path.display()),
            Self::Command { program, .. } => write!(formatter, "the command {program}"),
            Self::Variable(name) => write!(formatter, "the environment variable {name}"),
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenSource({self})")
    }
}

impl TokenSource {
    /// Whether reading again can give another token.
    pub(super) fn can_change(&self) -> bool {
        !matches!(self, Self::Text(_))
    }

    /// Whether the token is checked again although the service accepts it.
    pub(super) fn is_looked_at(&self) -> bool {
        matches!(self, Self::File(_))
    }

    pub(super) async fn read(self) -> Result<Bearer, TokenError> {
        let text = match &self {
            Self::Text(token) => Ok(token.clone()),
            Self::File(path) => {
                let path = path.clone();
                // A file system may be slow.
                match spawn_blocking(move || read_file(&path)).await {
                    Ok(read) => read.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Self::Command { program, arguments } => run(program, arguments, COMMAND_TIMEOUT).await,
            Self::Variable(name) => env::var(name).map_err(|error| error.to_string()),
        };
        let bearer = text.and_then(|text| bearer(&text).map_err(str::to_owned));
        bearer.map_err(|reason| self.error(reason))
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> TokenError {
        TokenError {
            origin: self.to_string(),
            reason: reason.into(),
        }
    }
}

/// The header for a token, or what is wrong with it.
pub(super) fn bearer(token: &str) -> Result<Bearer, &'static str> {
    let token = token.trim();
    if token.is_empty() {
        return Err("it is empty");
    }
    let mut bearer = Bearer::try_from(format!("Bearer {token}"))
        .map_err(|_| "it contains characters that are not allowed in a token")?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    match is_too_long(text.len()) {
        true => Err(io::Error::other("it is longer than 16 KiB")),
        false => Ok(text),
    }
}

/// The output of a program, which ends with this call.
async fn run(program: &str, arguments: &[String], limit: Duration) -> Result<String, String> {
    // What it has to say to people goes to our standard error.
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    let ended = async {
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = stdout.take(MAX_BYTES + 1);
            stdout.read_to_end(&mut output).await?;
        }
        // One that has more to write would wait for a reader.
        if is_too_long(output.len()) {
            return Err(io::Error::other("its output is longer than 16 KiB"));
        }
        Ok((child.wait().await?, output))
    };
    let (status, output) = match timeout(limit, ended).await {
        Ok(ended) => ended.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("it did not end within {limit:?}")),
    };
    if !status.success() {
        return Err(format!("it ended with {status}"));
    }
    String::from_utf8(output).map_err(|_| "its output is not text".to_owned())
}

fn is_too_long(bytes: usize) -> bool {
    u64::try_from(bytes).is_ok_and(|bytes| bytes > MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("it can be built")
    }

    fn shell(script: &str, limit: Duration) -> Result<String, String> {
        let arguments = ["-c".to_owned(), script.to_owned()];
        runtime().block_on(run("sh", &arguments, limit))
    }

    #[test]
    fn a_command_is_bounded_in_time_and_output() {
        let long = Duration::from_secs(60);
        assert_eq!(shell("echo secret", long).as_deref(), Ok("secret\n"));
        for (script, limit, reason) in [
            (
                "exec sleep 600",
                Duration::from_millis(50),
                "it did not end within 50ms",
            ),
            ("exec yes", long, "its output is longer than 16 KiB"),
            ("echo secret; exit 3", long, "it ended with exit status: 3"),
            (r"printf '\377'", long, "its output is not text"),
        ] {
            assert_eq!(shell(script, limit), Err(reason.to_owned()), "{script}");
        }
        let exactly = format!("head -c {MAX_BYTES} /dev/zero | tr '\\0' a");
        assert!(shell(&exactly, long).is_ok());
    }

    #[test]
    fn errors_and_debug_output_name_the_source_and_nothing_of_the_token() {
        let dir = env::temp_dir().join(format!("voicecall-token-source-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("it can be made");
        let file = |name: &str, content: &[u8]| {
            let path = dir.join(name);
            std::fs::write(&path, content).expect("it can be written");
            TokenSource::File(path)
        };
        let command = |program: &str, script: &str| TokenSource::Command {
            program: program.to_owned(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
        };
        for (source, names) in [
            (file("empty", b" \n"), "/empty: it is empty"),
            (
                file("lines", b"secret\nsecret"),
                "/lines: it contains characters",
            ),
            (
                file("binary", b"secret\xff"),
                "/binary: stream did not contain valid UTF-8",
            ),
            (
                file("long", "secret".repeat(3000).as_bytes()),
                "/long: it is longer than 16 KiB",
            ),
            (TokenSource::File(dir.join("none")), "/none: No such file"),
            (
                command("sh", "echo secret; false"),
                "the command sh: it ended with",
            ),
            (
                command("/none/secretless", "secret"),
                "the command /none/secretless: No such file",
            ),
            (command("sh", "# secret"), "the command sh: it is empty"),
            (
                TokenSource::Variable("VOICECALL_NO_SUCH".into()),
                "the environment variable VOICECALL_NO_SUCH: environment variable not found",
            ),
        ] {
            let debug = format!("{source:?}").replace("secretless", "");
            let error = runtime()
                .block_on(source.read())
                .expect_err("there is none");
            let text = format!("{error}");
            assert!(text.contains(names), "{text}");
            let all = format!("{text}{error:?}").replace("secretless", "");
            assert!(
                !all.contains("secret") && !debug.contains("secret"),
                "{all} {debug}"
            );
        }
        std::fs::remove_dir_all(&dir).expect("it is there");
    }

    #[test]
    fn a_token_is_trimmed_and_stays_out_of_debug_output() {
        let source = TokenSource::from(" secret\n");
        let bearer = runtime().block_on(source.clone().read());
        let bearer = bearer.expect("it is good");
        assert_eq!(bearer.to_str().ok(), Some("Bearer secret"));
        for debug in [format!("{bearer:?}"), format!("{source:?}")] {
            assert!(!debug.contains("secret"), "{debug}");
        }
    }
}
