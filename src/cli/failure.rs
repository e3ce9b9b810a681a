//! What can go wrong with a command, as a message and as an exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{
    client::{self, Code, SettingsError},
    proto::ErrorReason,
};

const OTHER: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const REFUSED: u8 = 4;
const UNAVAILABLE: u8 = 5;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// A request failed.
    Service(client::Error),
    /// Flags contradict each other, or one is missing.
    Usage(String),
    /// The flags for reaching the service are invalid.
    Settings(SettingsError),
    /// A file cannot be read or written.
    File(String),
    /// This many records of an import were refused; the others were imported.
    Refused(u64),
    /// The argument is not a valid token.
    InvalidToken,
    /// These calls do not exist; the others were shown.
    Missing(Vec<String>),
    /// Standard output cannot be written to.
    Output(io::Error),
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::Service(error)
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::Settings(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// Whether the reader of the output has closed it, which is no failure.
    fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        let code = match self {
            _ if self.is_closed_pipe() => return ExitCode::SUCCESS,
            Self::Service(error) => code_of(error),
            Self::Usage(_)
            | Self::Settings(SettingsError::Endpoint(_) | SettingsError::TlsUnused) => USAGE,
            Self::Missing(_) => NOT_FOUND,
            Self::Refused(_) | Self::InvalidToken => REFUSED,
            Self::Settings(_) | Self::File(_) | Self::Output(_) => OTHER,
        };
        ExitCode::from(code)
    }

    /// Writes to standard error what is wrong: one line, and one more for each invalid field.
    pub(super) fn report(&self) {
        if self.is_closed_pipe() {
            return;
        }
        let lines = match self {
            Self::Service(error) => lines_of(error),
            Self::Refused(1) => vec!["1 record was refused".to_owned()],
            Self::Refused(count) => vec![format!("{count} records were refused")],
            Self::Usage(what) | Self::File(what) => vec![what.clone()],
            Self::Settings(error) => vec![error.to_string()],
            Self::InvalidToken => {
                vec![
                    "not a valid token: it is truncated, corrupt, or from a newer release"
                        .to_owned(),
                ]
            }
            Self::Missing(uids) => uids
                .iter()
                .map(|uid| format!("there is no call {uid}"))
                .collect(),
            Self::Output(error) => vec![format!("cannot write the output: {error}")],
        };
        lines.iter().for_each(|line| note(line));
    }
}

/// Writes a line to standard error.
pub(super) fn note(line: &str) {
    // A closed standard error is ignored.
    let _ = writeln!(io::stderr(), "voicecall: {line}");
}

fn code_of(error: &client::Error) -> u8 {
    match (error.code, error.reason()) {
        (_, Some(ErrorReason::RevisionNotReached)) => UNAVAILABLE,
        (_, Some(ErrorReason::MessageTooLarge)) => REFUSED,
        (Code::NotFound, _) => NOT_FOUND,
        // Not from the service, where it has a reason: the endpoint is wrong.
        (Code::FailedPrecondition, None) if error.details.reason.is_none() => USAGE,
        (
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::Aborted
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unauthenticated,
            _,
        ) => REFUSED,
        (Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted, _) => UNAVAILABLE,
        _ => OTHER,
    }
}

fn lines_of(error: &client::Error) -> Vec<String> {
    let details = &error.details;
    // The message of the service would repeat the lines of the fields.
    let mut first = if details.violations.is_empty() {
        error.message.clone()
    } else {
        "the request was refused".to_owned()
    };
    let name = details.reason.clone();
    let mut more = vec![name.unwrap_or_else(|| error.code_name())];
    for (key, value) in &details.metadata {
        // The message already has the uid.
        if key != "uid" && !first.contains(value.as_str()) {
            more.push(format!("{key}: {value}"));
        }
    }
    if let Some(id) = details
        .x_request_id
        .as_ref()
        .filter(|_| error.code == Code::Internal)
    {
        more.push(format!("x-request-id: {id}"));
    }
    if details.attempts > 1 {
        more.push(format!("after {} attempts", details.attempts));
    }
    first.push_str(&format!(" ({})", more.join(", ")));
    let mut lines = vec![one_line(&first)];
    lines.extend(details.violations.iter().map(|violation| {
        let field = violation.field.strip_prefix("voice_call.");
        let field = field.unwrap_or(&violation.field);
        one_line(&format!("{field} {}", violation.description))
    }));
    if let Some(id) = details
        .request_id
        .as_ref()
        .filter(|_| may_be_applied(error.code))
    {
        lines.push(format!(
            "retry with --request-id {id}; the write is applied at most once"
        ));
    }
    lines
}

/// Whether a write that failed with this code may have been applied.
fn may_be_applied(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown
    )
}

/// The text without control characters, which could break the line or control the terminal.
pub(super) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
