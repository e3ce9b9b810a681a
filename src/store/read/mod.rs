//! How calls are read: `lookups` by uid, coalesced; `lists`, page by page; `statistics`. The filter
//! as SQL is in `filter_sql`, with `predicate` for what the query builder cannot say. Each thread
//! of callers has a `worker` of its own.

pub(super) mod filter_sql;
pub(super) mod lists;
pub(super) mod lookups;
pub(super) mod predicate;
pub(super) mod statistics;
pub(super) mod worker;
