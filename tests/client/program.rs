//! The program, run as a person or a script would.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::Command;

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl Ran {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
            code: output.status.code(),
        }
    }

    /// The output of a run without any complaint.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// The lines of such an output as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Vec<Value> {
        let text = self.ok();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}

/// The program with these arguments, for the service at `endpoint`, with nothing
/// of this process's own settings.
pub(crate) fn command(endpoint: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voicecall"));
    command
        .env_clear()
        .env("VOICECALL_ENDPOINT", endpoint)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs the program to its end.
pub(crate) async fn run(endpoint: &str, args: &[&str]) -> Ran {
    let output = command(endpoint, args).output().await;
    Ran::new(output.expect("the program is built"))
}

/// Runs it with another environment.
pub(crate) async fn run_with(endpoint: &str, args: &[&str], vars: &[(&str, &str)]) -> Ran {
    let mut command = command(endpoint, args);
    let output = command.envs(vars.iter().copied()).output().await;
    Ran::new(output.expect("the program is built"))
}

/// What a user's environment, or a CI's, says of colours: the tests say it themselves.
const COLOUR_VARS: [&str; 4] = ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"];

/// Runs it in a terminal of this width; what it writes is what a person sees,
/// line ends made plain.
pub(crate) async fn run_in_terminal(
    endpoint: &str,
    args: &[&str],
    columns: u16,
    vars: &[(&str, &str)],
) -> String {
    let program = env!("CARGO_BIN_EXE_voicecall");
    let args: Vec<_> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let line = format!("stty rows 40 cols {columns}; {program} {}", args.join(" "));
    let mut terminal = Command::new("script");
    for var in COLOUR_VARS {
        terminal.env_remove(var);
    }
    let output = terminal
        .args(["-qec", &line, "/dev/null"])
        .env("VOICECALL_ENDPOINT", endpoint)
        .env("TERM", "xterm-256color")
        .envs(vars.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await;
    let output = output.expect("script comes with every Debian");
    String::from_utf8(output.stdout)
        .expect("text")
        .replace("\r\n", "\n")
}
