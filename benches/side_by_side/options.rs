//! What can be asked of the benchmark.

use std::path::PathBuf;

/// Options of a run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// How often each figure is taken; the table has the medians.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Seconds for each figure, after a quarter of that as warm-up.
    #[arg(long, default_value_t = 2.5)]
    pub(crate) seconds: f64,
    /// Calls in the database at the beginning.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) rows: u64,
    /// Look a call of every page of the table up and create calls for a while before
    /// anything is measured, with no checkpoint between.
    #[arg(long)]
    pub(crate) warm: bool,
    /// Only rows whose name has one of these words.
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Compare with this program alone, another build of the service, on a database of
    /// its own with as many calls: what a change costs. Best with --rounds 7 or more, and --only.
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["warm", "docs"])]
    pub(crate) before: Option<PathBuf>,
    /// Measure and draw the plots too, and put them and the table into the
    /// documentation in this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) docs: Option<PathBuf>,
    /// Where the databases are made. A file system that is only memory makes
    /// every sync free.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,
}
