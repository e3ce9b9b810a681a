//! How writes are committed.
//!
//! `writer` takes them into the `queue`. One of the `committer`s at a time holds the queue:
//! it takes all that waits, has the `planner` run it through the state machine, and commits
//! the batch by one `statement` (`attempt`) over its `session`. `commit_outcome` finds out
//! whether a commit took place whose session was lost; `idempotency` answers repeated
//! requests from the log; `import_halves` isolates a record that the database refuses.

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
