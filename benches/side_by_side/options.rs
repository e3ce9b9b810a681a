//! The options of the benchmark.

use std::path::PathBuf;

use crate::secured::Secured;

/// The options of a run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// How often each figure is measured; the table has the medians.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Seconds for each figure, after a quarter of that as warm-up.
    #[arg(long, default_value_t = 2.5)]
    pub(crate) seconds: f64,
    /// Calls in the database at the start.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) rows: u64,
    /// Before measuring, look up a call of every page of the table and create calls for a
    /// while, without a checkpoint in between.
    #[arg(long)]
    pub(crate) warm: bool,
    /// Measure only the rows whose name contains one of these words.
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Compare only with this program, another build of the service, on a database of its own
    /// with as many calls, to measure what a change costs. Best with --rounds 7 or more, and
    /// --only.
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["warm", "docs"])]
    pub(crate) before: Option<PathBuf>,
    /// Secure the present build, and compare it with that of --before, which is not.
    #[arg(long, value_name = "WITH", value_delimiter = ',', requires = "before")]
    pub(crate) secured: Vec<Secured>,
    /// Also measure and draw the plots, and write them and the table to the documentation in
    /// this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) docs: Option<PathBuf>,
    /// Where the databases are created. In a file system in memory every sync would be free.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,
}
