//! How writes are committed.
//!
//! `writer` takes them (`write`) into the `queue`. One of the `committer`s at a time holds the
//! queue: it takes all that waits, has the `planner` run it through the state machine, and commits
//! the batch by one `statement` (`attempt`) over its `session`. The database function
//! `commit_batch_v1` (in `migrations/`) decides: it recognises repeated requests and stale reads,
//! and sets the revision and the time. `attempt` settles what it refuses, `idempotency` rebuilds
//! the response to a repeated request from the log. `commit_outcome` finds out whether a commit
//! took place whose session was lost. `import_halves` isolates a record that the database refuses.
//! `committed_batch` is what the feed gets.

pub(super) mod attempt;
pub(super) mod commit_outcome;
pub(super) mod committed_batch;
pub(super) mod committer;
pub(super) mod idempotency;
pub(super) mod import_halves;
pub(super) mod planner;
pub(super) mod queue;
pub(super) mod session;
pub(super) mod statement;
pub(super) mod write;
pub(super) mod writer;
