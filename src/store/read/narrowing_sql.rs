//! The narrowing of a caller, compiled to SQL: the same predicate as
//! [`Narrowing::covers`](crate::domain::Narrowing::covers).

use super::predicate::{Predicate, is_not, text_is};
use crate::domain::{Narrowing, StaffNarrowing};

/// What makes a call one that nobody has answered or handled yet. The same as in the index.
pub(crate) const UNASSIGNED: &str =
    "(staff_uid IS NULL AND handled_by_staff_uid IS NULL AND handled_at IS NULL)";

/// The calls of a member of staff, in parts without a call in common.
pub(crate) fn of_staff(staff: &StaffNarrowing) -> Vec<Predicate<'_>> {
    let uid = staff.staff_uid.as_str();
    let handled = text_is("handled_by_staff_uid", vec![uid]);
    let mut parts = vec![
        text_is("staff_uid", vec![uid]),
        handled.and(is_not("staff_uid", uid)),
    ];
    if staff.unassigned {
        parts.push(Predicate::default().sql(UNASSIGNED));
    }
    parts
}

/// Whether a change in the log may have been made to a call of theirs, or made it one: no row that it
/// leaves out concerns them, so that reading what concerns others takes no time.
pub(crate) fn may_concern(narrowing: &Narrowing) -> Predicate<'_> {
    let mut is_theirs = Predicate::default().sql("TRUE");
    if let Some(staff) = narrowing.staff() {
        let uid = staff.staff_uid.as_str();
        let mut parts = Predicate::default().sql("staff_uid = ").text(uid);
        parts = parts.or(Predicate::default()
            .sql("handled_by_staff_uid = ")
            .text(uid));
        if staff.unassigned {
            parts = parts.or(Predicate::default().sql(UNASSIGNED));
        }
        is_theirs = is_theirs.and(parts);
    }
    if let Some(client_uid) = narrowing.client_uid() {
        let of_client = Predicate::default().sql("client_uid = ");
        is_theirs = is_theirs.and(of_client.text(client_uid.as_str()));
    }
    let other = "kind = 'purged' OR old_values ?| ARRAY['staff_uid', 'client_uid', \
        'handled_by_staff_uid', 'handled_at']";
    is_theirs.or(Predicate::default().sql(other))
}
