//! `voicecall completions`.

use clap::Args;
use clap_complete::Shell;

use super::{failure::Failure, output::Output};

/// Write the completion script of a shell to standard output.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, program: &mut clap::Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, program, "voicecall", &mut script);
        let mut output = Output::new(false);
        output.bytes(&script)?;
        output.finish()
    }
}
