//! A view, compiled to SQL: the same predicate as
//! [`View::matches`](crate::domain::View::matches).

use diesel::{pg::Pg, prelude::*};

use super::{
    narrowing_sql::of_staff,
    predicate::{Predicate, is_not, text_is},
};
use crate::{
    domain::{Direction, Filter, Identifier, Narrowing, PhoneNumber, Status, View},
    store::{schema::voice_calls as t, values::to_sql_time},
};

/// The most conditions in a filter that counts as common.
const MAX_COMMON: usize = 2;

/// A query on the calls that is still being built.
pub(crate) type CallQuery<'a> = t::BoxedQuery<'a, Pg>;

/// Adds `column = value` for one value and `column = ANY (values)` for more: only with the
/// first form does the column's index also give the order of the page.
macro_rules! any_of {
    ($query:ident, $column:expr, $values:expr) => {
        match $values.as_slice() {
            [] => {}
            [one] => $query = $query.filter($column.eq(*one)),
            _ => $query = $query.filter($column.eq_any($values)),
        }
    };
}

/// The calls in the view.
pub(crate) fn in_view(view: &View) -> CallQuery<'_> {
    let mut query = in_view_but_for_ors(view);
    for parts in ors(view) {
        let parts = parts.into_iter().reduce(Predicate::or);
        if let Some(any) = parts {
            query = query.filter(any);
        }
    }
    query
}

/// The same calls in disjoint parts, each of which an index returns in the order of a page.
/// No index does that for an OR of several columns.
pub(crate) fn in_view_in_parts(view: &View) -> Vec<CallQuery<'_>> {
    if view.filter.numbers.len() > 1 {
        return vec![in_view(view)];
    }
    let query = || in_view_but_for_ors(view);
    match ors(view).reduce(|parts, others| each_with_each(&parts, &others)) {
        None => vec![query()],
        Some(parts) => parts.into_iter().map(|part| query().filter(part)).collect(),
    }
}

/// The conditions of the view that are ORs of several columns, each in its parts.
fn ors(view: &View) -> impl Iterator<Item = Vec<Predicate<'_>>> {
    let numbers = numbers(&view.filter.numbers);
    let staff = view.narrowing.as_deref().and_then(Narrowing::staff);
    let of_numbers = (!numbers.is_empty()).then(|| of_numbers(numbers));
    [of_numbers, staff.map(of_staff)].into_iter().flatten()
}

fn each_with_each<'a>(parts: &[Predicate<'a>], others: &[Predicate<'a>]) -> Vec<Predicate<'a>> {
    let with_others = |part: &Predicate<'a>| {
        let part = part.clone();
        others
            .iter()
            .map(move |other| part.clone().and(other.clone()))
    };
    parts.iter().flat_map(with_others).collect()
}

/// The calls with one of these numbers on either side. The parts of several numbers have calls in
/// common.
fn of_numbers(numbers: Vec<&str>) -> Vec<Predicate<'_>> {
    let from = text_is("from_number", numbers.clone());
    let to = match numbers.as_slice() {
        [one] => text_is("to_number", vec![one]).and(is_not("from_number", one)),
        _ => text_is("to_number", numbers),
    };
    vec![from, to]
}

fn in_view_but_for_ors(view: &View) -> CallQuery<'_> {
    let mut query = t::table.into_boxed();
    if let Some(client_uid) = view.narrowing.as_deref().and_then(Narrowing::client_uid) {
        query = query.filter(text_is("client_uid", vec![client_uid.as_str()]));
    }
    let filter = &view.filter;
    any_of!(query, t::uid, filter.uids.clone());
    for (column, texts) in [
        ("staff_uid", names(&filter.staff_uids)),
        ("client_uid", names(&filter.client_uids)),
        ("handled_by_staff_uid", names(&filter.handled_by_staff_uids)),
        ("from_number", numbers(&filter.from_numbers)),
        ("to_number", numbers(&filter.to_numbers)),
    ] {
        if !texts.is_empty() {
            query = query.filter(text_is(column, texts));
        }
    }
    if !filter.statuses.is_empty() {
        let words = filter.statuses.iter().filter_map(status_literal);
        query = query.filter(in_literals("status", words));
    }
    if !filter.directions.is_empty() {
        let words = filter.directions.iter().filter_map(direction_literal);
        query = query.filter(in_literals("direction", words));
    }
    filter_ranges(query, filter)
}

fn filter_ranges<'a>(mut query: CallQuery<'a>, filter: &Filter) -> CallQuery<'a> {
    if let Some(after) = filter.created.after {
        query = query.filter(t::created_at.ge(to_sql_time(after)));
    }
    if let Some(before) = filter.created.before {
        query = query.filter(t::created_at.lt(to_sql_time(before)));
    }
    if let Some(after) = filter.updated.after {
        query = query.filter(t::updated_at.ge(to_sql_time(after)));
    }
    if let Some(before) = filter.updated.before {
        query = query.filter(t::updated_at.lt(to_sql_time(before)));
    }
    if let Some(min) = filter.min_duration {
        query = query.filter(t::duration.ge(min.get()));
    }
    if let Some(max) = filter.max_duration {
        query = query.filter(t::duration.le(max.get()));
    }
    match filter.handled {
        Some(true) => query = query.filter(t::handled_at.is_not_null()),
        Some(false) => query = query.filter(t::handled_at.is_null()),
        None => {}
    }
    match filter.has_recording {
        Some(true) => query = query.filter(t::recording_url.is_not_null()),
        Some(false) => query = query.filter(t::recording_url.is_null()),
        None => {}
    }
    if !filter.show_deleted {
        query = query.filter(t::deleted_at.is_null());
    }
    query
}

/// The number of values in each list of the filter.
fn values(filter: &Filter) -> [usize; 9] {
    [
        filter.uids.len(),
        filter.staff_uids.len(),
        filter.client_uids.len(),
        filter.handled_by_staff_uids.len(),
        filter.statuses.len(),
        filter.directions.len(),
        filter.numbers.len(),
        filter.from_numbers.len(),
        filter.to_numbers.len(),
    ]
}

/// Which bounds of ranges the filter has.
fn bounds(filter: &Filter) -> [bool; 6] {
    [
        filter.created.after.is_some(),
        filter.created.before.is_some(),
        filter.updated.after.is_some(),
        filter.updated.before.is_some(),
        filter.min_duration.is_some(),
        filter.max_duration.is_some(),
    ]
}

/// Whether the view has so few conditions that there are few different statements of its
/// kind, which connections can keep prepared.
pub(crate) fn is_common(view: &View) -> bool {
    let View { filter, narrowing } = view;
    let flags = [
        filter.handled.is_some(),
        filter.has_recording.is_some(),
        filter.show_deleted,
        narrowing.is_some(),
    ];
    let set = bounds(filter).into_iter().chain(flags);
    let said = values(filter).iter().sum::<usize>() + set.filter(|set| *set).count();
    said <= MAX_COMMON
}

/// Whether the view is common, and its filter has no ranges and no uids, and at most one value
/// in each list: then indexes return the page in its order, whatever the values are.
pub(crate) fn is_plain(view: &View) -> bool {
    let filter = &view.filter;
    is_common(view)
        && filter.uids.is_empty()
        && values(filter).iter().all(|count| *count <= 1)
        && !bounds(filter).contains(&true)
}

fn names(names: &[Identifier]) -> Vec<&str> {
    names.iter().map(Identifier::as_str).collect()
}

fn numbers(numbers: &[PhoneNumber]) -> Vec<&str> {
    numbers.iter().map(PhoneNumber::as_str).collect()
}

/// `column IN ('word', …)`, or false without words. The words are constants in the SQL,
/// because the planner uses a partial index only if it knows the value.
fn in_literals(column: &str, words: impl Iterator<Item = &'static str>) -> Predicate<'static> {
    let words: Vec<_> = words.collect();
    let predicate = Predicate::default();
    match words.as_slice() {
        [] => predicate.sql("FALSE"),
        [one] => predicate.sql(format!("{column} = {one}")),
        _ => predicate.sql(format!("{column} IN ({})", words.join(", "))),
    }
}

fn status_literal(status: &Status) -> Option<&'static str> {
    match status {
        Status::IncomingCall => Some("'incoming call'"),
        Status::AnsweredByStaff => Some("'answered by staff'"),
        Status::Missed => Some("'missed'"),
        Status::AnsweredByVonage => Some("'answered by vonage'"),
        Status::Unrecognized(_) => None,
    }
}

fn direction_literal(direction: &Direction) -> Option<&'static str> {
    match direction {
        Direction::Inbound => Some("'inbound'"),
        Direction::Outbound => Some("'outbound'"),
        Direction::Unrecognized(_) => None,
    }
}
