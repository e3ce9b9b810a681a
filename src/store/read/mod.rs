//! How calls are read: `lookups` by uid, coalesced, by the
//! statements in `by_uid`; `lists`, page by page; `statistics`. The filter
//! as SQL is in `filter_sql`, what a caller may see in `narrowing_sql`, with `predicate` for what the
//! query builder cannot say. Each thread of callers has a `worker` of its own. A read that fails is repeated on a new session by one
//! rule, `database::Attempts` (in `database/pool`): `lookups` applies it in a loop of its own,
//! `lists` and `statistics` through the pool.

pub(super) mod by_uid;
pub(super) mod filter_sql;
pub(super) mod lists;
pub(super) mod lookups;
pub(super) mod narrowing_sql;
pub(super) mod predicate;
pub(super) mod statistics;
pub(super) mod worker;
