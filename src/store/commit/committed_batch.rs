//! What the committers hand to the follower of the log.

use crate::{
    domain::{Change, Timestamp},
    store::Position,
};

/// A batch that this process has committed.
#[derive(Debug)]
pub struct CommittedBatch {
    /// Where the log ended before.
    pub before: Position,
    /// The batch's stamp.
    pub stamp: i64,
    /// Its changes, in order; at least one.
    pub changes: Vec<Change>,
    /// When it was committed, by the database's clock. No other batch was
    /// committed between `before` and this.
    pub committed_at: Timestamp,
}
