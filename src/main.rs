//! The `voicecall` program.

use std::process::ExitCode;

use clap::CommandFactory;
use voicecall::config::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::of_program().command {
        Command::Client(command) => return voicecall::cli::run(&command, &mut Cli::command()),
        Command::Serve(settings) => voicecall::commands::serve(&settings),
        Command::Migrate(settings) => voicecall::commands::migrate(&settings),
        Command::Auth(command) => voicecall::commands::auth(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("voicecall: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Requests allocate many small objects on one thread and free them on another, which is
/// slow with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
