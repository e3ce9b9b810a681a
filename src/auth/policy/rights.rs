//! What an entry of the policy file says its principal may do, with which calls, and how much at
//! once.

use std::{num::NonZeroU32, sync::Arc};

use serde::Deserialize;
use toml::Spanned;

use super::file::{Mistake, mistake};
use crate::{
    auth::{Limits, Rate, Scope, Scopes},
    domain::{Identifier, Narrowing, StaffNarrowing},
};

/// The limits of an entry, each at least 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of limits")]
pub(super) struct LimitsTable {
    requests: Option<Spanned<i64>>,
    watches: Option<Spanned<i64>>,
    transfers: Option<Spanned<i64>>,
    rate: Option<Spanned<i64>>,
    burst: Option<Spanned<i64>>,
}

pub(super) fn scopes(names: &[Spanned<String>]) -> Result<Scopes, Mistake> {
    let parse = |name: &Spanned<String>| match Scope::parse(name.get_ref()) {
        Some(scope) => Ok(scope),
        None => mistake(
            name.span(),
            "the scopes are calls:read, calls:write and calls:purge",
        ),
    };
    names.iter().map(parse).collect()
}

/// Whose calls they are; `None`: all calls.
pub(super) fn narrowing(
    staff_uid: Option<Spanned<String>>,
    unassigned: Option<Spanned<bool>>,
    client_uid: Option<Spanned<String>>,
) -> Result<Option<Arc<Narrowing>>, Mistake> {
    let staff = match (staff_uid, unassigned) {
        (None, Some(unassigned)) => {
            return mistake(unassigned.span(), "unassigned needs staff_uid");
        }
        (None, None) => None,
        (Some(staff_uid), unassigned) => Some(StaffNarrowing {
            staff_uid: identifier(staff_uid, "staff_uid")?,
            unassigned: unassigned.is_some_and(Spanned::into_inner),
        }),
    };
    let client_uid = client_uid.map(|uid| identifier(uid, "client_uid"));
    Ok(Narrowing::new(staff, client_uid.transpose()?).map(Arc::new))
}

fn identifier(uid: Spanned<String>, key: &str) -> Result<Identifier, Mistake> {
    let at = uid.span();
    Identifier::new(uid.into_inner()).or_else(|error| mistake(at, format!("{key} {error}")))
}

/// The exceptions to the limits that all principals have.
pub(super) fn limits(table: Option<LimitsTable>) -> Result<Limits, Mistake> {
    let Some(table) = table else {
        return Ok(Limits::default());
    };
    let burst = count(table.burst.as_ref(), "burst")?;
    let rate = count(table.rate.as_ref(), "rate")?.map(|rate| Rate::new(rate, burst));
    if let (None, Some(burst)) = (rate, &table.burst) {
        return mistake(burst.span(), "burst needs rate");
    }
    Ok(Limits {
        requests: count(table.requests.as_ref(), "requests")?,
        watches: count(table.watches.as_ref(), "watches")?,
        transfers: count(table.transfers.as_ref(), "transfers")?,
        rate,
    })
}

fn count(number: Option<&Spanned<i64>>, key: &str) -> Result<Option<NonZeroU32>, Mistake> {
    let Some(number) = number else {
        return Ok(None);
    };
    let count = u32::try_from(*number.get_ref()).ok();
    match count.and_then(NonZeroU32::new) {
        Some(count) => Ok(Some(count)),
        None => mistake(
            number.span(),
            format!("{key} must be from 1 to {}", u32::MAX),
        ),
    }
}
