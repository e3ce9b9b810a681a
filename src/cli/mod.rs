//! The commands of a client: of a running service, but for `token` and `completions`.
//!
//! - each command, or family of commands, has a file with its flags and what it does;
//!   [`Command`] lists them (`serve`, `migrate` and `auth` are in `config`)
//! - `service` has the flags that they share, and `profile` reads the file with the same settings
//!   by name; `command_line` splits a command that prints a token
//! - `fields` and `filter` have the flags for the fields of a call and of a filter
//! - [`json`] reads and writes a call in the JSON format of the voice call object; `names` are
//!   the names of statuses and directions, `time` the formats of times
//! - `output` writes calls: `view` formats one call or the rows of a list, `table` fits a table
//!   to the terminal, `screen` is what the terminal can show
//! - `events` writes changes, `groups` statistics, with `bucket` for their times
//! - `source` reads the records of an import, `records` splits them; `progress` is the progress
//!   bar
//! - `failure` is what can go wrong, as a message and as an exit code
//!
//! It deliberately knows nothing about the service but its API, and uses only the client
//! library.

mod bucket;
mod command_line;
mod completions;
mod create;
mod delete;
mod events;
mod export;
mod failure;
mod fields;
mod filter;
mod get;
mod groups;
mod handle;
mod import;
pub(crate) mod json;
mod list;
mod names;
mod output;
mod profile;
mod progress;
mod purge;
mod records;
mod screen;
mod service;
mod source;
mod stats;
mod table;
mod time;
mod token;
mod update;
mod view;
mod watch;

use std::process::ExitCode;

use clap::Subcommand;
use tokio::runtime;

use self::failure::Failure;

/// The meaning of the exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 any other error; 2 wrong usage; 3 not found; 4 refused: a bad \
field, or the call's state does not allow it; 5 the service is unreachable, overloaded or \
too slow";

/// The commands that are clients of a running service.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show calls.
    Get(get::Get),
    /// List calls, newest first.
    ///
    /// On a terminal: a table that fits its width. In a pipe: the sixteen fields in the
    /// order of the voice call object, separated by tabs, without a heading; absent fields
    /// are empty, and line breaks in a summary become spaces.
    List(Box<list::List>),
    /// Create a call.
    Create(Box<create::Create>),
    /// Update a call.
    Update(Box<update::Update>),
    /// Mark a call as handled.
    Handle(handle::Handle),
    /// Delete a call; it can be undeleted.
    Delete(delete::Delete),
    /// Restore a deleted call.
    Undelete(delete::Undelete),
    /// Erase a call permanently, also from the change log; its uid stays reserved.
    Purge(purge::Purge),
    /// Watch changes to calls, one line for each change, until interrupted.
    ///
    /// Each change is shown once and in order, even if the connection is lost or the
    /// service restarts meanwhile. By default only new changes are shown.
    ///
    /// ENTERED: the call now matches. UPDATED: it still matches. EXITED: it no longer
    /// matches. DELETED, PURGED: it is gone. With --json there are POSITION lines too:
    /// --resume with the token of one continues after everything that came before it.
    Watch(Box<watch::Watch>),
    /// Show the history of a call.
    History(watch::History),
    /// Count calls, by status, staff, time and so on.
    ///
    /// On a terminal: a table with bars for the counts. In a pipe: the groups, the count,
    /// how many are handled, the sum and the mean of the durations, and the mean time until
    /// a call was handled, in seconds, separated by tabs and without a heading; --json
    /// names them.
    Stats(Box<stats::Stats>),
    /// Import calls as they are, including their times: JSON Lines or a JSON array.
    ///
    /// Each record has the keys of the voice call object. Records outside an array may also span
    /// several lines, if the first line of the input is a single brace. Refused records are
    /// reported by line and do not stop the others. After an interruption, run the import again
    /// from the beginning: calls that are already imported do not change. While the service is
    /// unavailable, the import waits for as long as --timeout allows.
    Import(import::Import),
    /// Export calls, oldest first, as JSON Lines.
    ///
    /// Each call has the keys of the voice call object. All calls are as they were at one
    /// revision, however long the export takes, and an output file appears only when it is
    /// complete.
    Export(Box<export::Export>),
    /// Decode a resume token or a page token.
    ///
    /// This needs no service: tokens carry a checksum, but no secret.
    Token(token::Token),
    /// Write the completion script of a shell to standard output.
    Completions(completions::Completions),
}

/// Runs a command, and reports a failure on standard error. `program` is the whole command
/// line, from which completions are generated.
#[must_use]
pub(crate) fn run(command: &Command, program: &mut clap::Command) -> ExitCode {
    // The commands send one request at a time, which needs no second thread.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(execute(command, program)),
        Err(error) => Err(Failure::Output(error)),
    };
    result.err().map_or(ExitCode::SUCCESS, |failure| {
        failure.report();
        failure.exit_code()
    })
}

async fn execute(command: &Command, program: &mut clap::Command) -> Result<(), Failure> {
    match command {
        Command::Get(get) => get.run().await,
        Command::List(list) => list.run().await,
        Command::Create(create) => create.run().await,
        Command::Update(update) => update.run().await,
        Command::Handle(handle) => handle.run().await,
        Command::Delete(delete) => delete.run().await,
        Command::Undelete(undelete) => undelete.run().await,
        Command::Purge(purge) => purge.run().await,
        Command::Watch(watch) => watch.run().await,
        Command::History(history) => history.run().await,
        Command::Stats(stats) => stats.run().await,
        Command::Token(token) => token.run(),
        Command::Import(import) => import.run().await,
        Command::Export(export) => export.run().await,
        Command::Completions(completions) => completions.run(program),
    }
}
