//! The filter and the order of a list, from the wire.

use super::{
    fields::{direction, seconds, status, timestamp},
    uids::uid,
};
use crate::{
    api::violations::Violations,
    domain::{
        Filter,
        filter::{MAX_VALUES, TimeRange},
        list::{Order, OrderField},
        text::TextError,
    },
    proto,
};

/// The filter of a request.
pub(crate) fn filter(
    filter: Option<proto::VoiceCallFilter>,
    violations: &mut Violations,
) -> Filter {
    let Some(f) = filter else {
        return Filter::default();
    };
    let v = violations;
    Filter {
        uids: each("uids", f.uids, v, |text, path, v| uid(&text, path, v)),
        staff_uids: texts("staff_uids", f.staff_uids, v),
        client_uids: texts("client_uids", f.client_uids, v),
        handled_by_staff_uids: texts("handled_by_staff_uids", f.handled_by_staff_uids, v),
        statuses: each("statuses", f.statuses, v, |value, path, v| {
            specified(value, path, v).and_then(|value| status(value, path, v))
        }),
        directions: each("directions", f.directions, v, |value, path, v| {
            specified(value, path, v).and_then(|value| direction(value, path, v))
        }),
        numbers: texts("numbers", f.numbers, v),
        from_numbers: texts("from_numbers", f.from_numbers, v),
        to_numbers: texts("to_numbers", f.to_numbers, v),
        created: TimeRange {
            after: timestamp(f.created_after, "filter.created_after", v),
            before: timestamp(f.created_before, "filter.created_before", v),
        },
        updated: TimeRange {
            after: timestamp(f.updated_after, "filter.updated_after", v),
            before: timestamp(f.updated_before, "filter.updated_before", v),
        },
        min_duration: seconds(f.min_duration, "filter.min_duration", v),
        max_duration: seconds(f.max_duration, "filter.max_duration", v),
        handled: f.handled,
        has_recording: f.has_recording,
        show_deleted: f.show_deleted,
    }
}

/// Parses each value of a repeated field.
fn each<V, T>(
    name: &str,
    values: Vec<V>,
    violations: &mut Violations,
    parse: impl Fn(V, &str, &mut Violations) -> Option<T>,
) -> Vec<T> {
    if values.len() > MAX_VALUES {
        violations.push(
            format!("filter.{name}"),
            format!(
                "must have at most {MAX_VALUES} values, not {}",
                values.len()
            ),
        );
        return Vec::new();
    }
    let parse = |(index, value)| parse(value, &format!("filter.{name}[{index}]"), violations);
    values.into_iter().enumerate().filter_map(parse).collect()
}

fn texts<T: TryFrom<String, Error = TextError>>(
    name: &str,
    values: Vec<String>,
    violations: &mut Violations,
) -> Vec<T> {
    each(name, values, violations, |text, path, violations| {
        T::try_from(text)
            .map_err(|error| violations.push(path, error))
            .ok()
    })
}

/// The value of an enum, which a filter must specify.
fn specified(value: i32, path: &str, violations: &mut Violations) -> Option<i32> {
    if value == 0 {
        violations.push(path, "must not be unspecified");
    }
    (value != 0).then_some(value)
}

/// The order of a list.
pub(crate) fn order(order_by: &str, violations: &mut Violations) -> Order {
    let words: Vec<&str> = order_by.split_ascii_whitespace().collect();
    let (field, descending) = match words.as_slice() {
        [] => return Order::DEFAULT,
        [field] => (*field, false),
        [field, "desc"] => (*field, true),
        _ => ("", false),
    };
    let field = match field {
        "created_at" => OrderField::CreatedAt,
        "updated_at" => OrderField::UpdatedAt,
        _ => {
            violations.push(
                "order_by",
                "must be created_at or updated_at, with an optional desc",
            );
            return Order::DEFAULT;
        }
    };
    Order { field, descending }
}
