pub(super) mod filter_sql;
pub(super) mod lists;
pub(super) mod lookups;
pub(super) mod predicate;
pub(super) mod statistics;
pub(super) mod worker;
