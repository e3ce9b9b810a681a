pub(super) mod idempotency_partitions;
pub(super) mod log_partitions;
pub(super) mod partitions;
pub(super) mod upkeep;
