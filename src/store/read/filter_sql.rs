//! The filter, compiled to SQL: the same predicate as
//! [`Filter::matches`](crate::domain::Filter::matches).

use diesel::{pg::Pg, prelude::*};

use super::predicate::Predicate;
use crate::{
    domain::{Direction, Filter, Identifier, PhoneNumber, Status},
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

/// Whether an indexed text is one of these. The index is on hashes. The text itself is
/// compared in a form whose selectivity the planner does not multiply with that of the
/// hash: otherwise it would expect hardly any rows, and choose to sort all of them.
fn text_is<'a>(column: &str, texts: Vec<&'a str>) -> Predicate<'a> {
    let keyed = Predicate::default();
    match texts.as_slice() {
        [one] => keyed
            .sql(format!(
                "(hashtextextended({column}, 0) = hashtextextended("
            ))
            .text(one)
            .sql(format!(", 0) AND coalesce({column} = "))
            .text(one)
            .sql(", FALSE))"),
        _ => keyed
            .sql(format!("(hashtextextended({column}, 0) = ANY (text_keys("))
            .texts(texts.clone())
            .sql(format!(")) AND coalesce({column} = ANY ("))
            .texts(texts)
            .sql("), FALSE))"),
    }
}

/// The calls that the filter matches.
pub(crate) fn filtered(filter: &Filter) -> CallQuery<'_> {
    let query = filtered_but_for_numbers(filter);
    if filter.numbers.is_empty() {
        return query;
    }
    let numbers = numbers(&filter.numbers);
    let from = text_is("from_number", numbers.clone());
    query.filter(from.or(text_is("to_number", numbers)))
}

/// The same calls in disjoint parts, each of which an index returns in the order of a page.
/// No index does that for an OR of two columns.
pub(crate) fn filtered_in_parts(filter: &Filter) -> Vec<CallQuery<'_>> {
    let [one] = filter.numbers.as_slice() else {
        return vec![filtered(filter)];
    };
    let one = one.as_str();
    let to = filtered_but_for_numbers(filter)
        .filter(text_is("to_number", vec![one]))
        .filter(t::from_number.is_distinct_from(Some(one)));
    vec![
        filtered_but_for_numbers(filter).filter(text_is("from_number", vec![one])),
        to,
    ]
}

fn filtered_but_for_numbers(filter: &Filter) -> CallQuery<'_> {
    let mut query = t::table.into_boxed();
    any_of!(query, t::uid, filter.uids.clone());
    any_of!(
        query,
        t::handled_by_staff_uid,
        names(&filter.handled_by_staff_uids)
    );
    for (column, texts) in [
        ("staff_uid", names(&filter.staff_uids)),
        ("client_uid", names(&filter.client_uids)),
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

/// Whether the filter has so few conditions that there are few different statements of its
/// kind, which connections can keep prepared.
pub(crate) fn is_common(filter: &Filter) -> bool {
    let flags = [
        filter.handled.is_some(),
        filter.has_recording.is_some(),
        filter.show_deleted,
    ];
    let set = bounds(filter).into_iter().chain(flags);
    let said = values(filter).iter().sum::<usize>() + set.filter(|set| *set).count();
    said <= MAX_COMMON
}

/// Whether the filter is common, has no ranges and no uids, and at most one value in each
/// list: then one index returns the page in its order, whatever the values are.
pub(crate) fn is_plain(filter: &Filter) -> bool {
    is_common(filter)
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
