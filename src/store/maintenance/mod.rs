//! What keeps the tables in shape: `upkeep` makes `partitions` of the change log
//! (`log_partitions`) and of the idempotency records (`idempotency_partitions`) before they
//! are needed and drops them when they have expired; `erasure` vacuums after purges;
//! `analyze` refreshes the planner's statistics.

pub(super) mod analyze;
pub(super) mod erasure;
pub(super) mod idempotency_partitions;
pub(super) mod log_partitions;
pub(super) mod partitions;
pub(super) mod upkeep;
