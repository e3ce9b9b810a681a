//! Filters at random, and what they match, by the documentation of `VoiceCallFilter`.

use prost_types::Timestamp;
use rand::{
    Rng,
    rngs::StdRng,
    seq::{IndexedRandom, IteratorRandom},
};
use voicecall::proto::{VoiceCall, VoiceCallFilter};

use super::callers::NAMES;
use crate::support::micros;

/// The numbers of calls, on either side.
pub(super) const NUMBERS: [&str; 3] = ["+1", "+2", "+3"];
/// How often a field of a filter is set. Most are not, or nothing would match.
const IS_SET: f64 = 0.1;
const MAX_DURATION: i32 = 5;

/// A duration at random.
pub(super) fn any_duration(random: &mut StdRng) -> i32 {
    random.random_range(0..=MAX_DURATION)
}

/// A filter at random. Its uids and times are those of `states`.
pub(super) fn any_filter(random: &mut StdRng, states: &[VoiceCall]) -> VoiceCallFilter {
    let names = |random: &mut StdRng| some_of(random, &NAMES);
    let created = |call: &VoiceCall| call.created_at;
    let updated = |call: &VoiceCall| call.updated_at;
    VoiceCallFilter {
        uids: any_uids(random, states),
        staff_uids: names(random),
        client_uids: names(random),
        handled_by_staff_uids: names(random),
        statuses: some_of(random, &[1, 2, 3, 4]),
        directions: some_of(random, &[1, 2]),
        numbers: some_of(random, &NUMBERS),
        from_numbers: some_of(random, &NUMBERS),
        to_numbers: some_of(random, &NUMBERS),
        created_after: any_time(random, states, created),
        created_before: any_time(random, states, created),
        updated_after: any_time(random, states, updated),
        updated_before: any_time(random, states, updated),
        min_duration: sometimes(random, any_duration),
        max_duration: sometimes(random, any_duration),
        handled: sometimes(random, Rng::random),
        has_recording: sometimes(random, Rng::random),
        show_deleted: random.random(),
    }
}

fn sometimes<T>(random: &mut StdRng, value: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    random.random_bool(IS_SET).then(|| value(random))
}

/// Some of these values, and mostly none.
fn some_of<T: Copy, U: From<T>>(random: &mut StdRng, values: &[T]) -> Vec<U> {
    let some = sometimes(random, |random| {
        let count = random.random_range(1..=values.len());
        let chosen = values.choose_multiple(random, count);
        chosen.map(|value| U::from(*value)).collect()
    });
    some.unwrap_or_default()
}

fn any_uids(random: &mut StdRng, states: &[VoiceCall]) -> Vec<String> {
    let some = sometimes(random, |random| {
        let count = random.random_range(1..=20);
        let mut uids: Vec<_> = states.iter().map(|call| call.uid.clone()).collect();
        uids.sort();
        uids.dedup();
        // One that no call ever had.
        uids.push(uuid::Uuid::from_u128(random.random()).to_string());
        uids.into_iter().choose_multiple(random, count)
    });
    some.unwrap_or_default()
}

fn any_time(
    random: &mut StdRng,
    states: &[VoiceCall],
    time: fn(&VoiceCall) -> Option<Timestamp>,
) -> Option<Timestamp> {
    sometimes(random, |random| states.choose(random).and_then(time)).flatten()
}

/// Whether the filter matches the call.
pub(super) fn matches(filter: &VoiceCallFilter, call: &VoiceCall) -> bool {
    let (from, to) = (call.from_number.as_ref(), call.to_number.as_ref());
    let is_after = |time, bound: Option<Timestamp>| {
        bound.is_none_or(|bound| micros(time) >= micros(Some(bound)))
    };
    let is_before = |time, bound: Option<Timestamp>| {
        bound.is_none_or(|bound| micros(time) < micros(Some(bound)))
    };
    let is_long = |bound: Option<i32>, holds: fn(i32, i32) -> bool| {
        bound.is_none_or(|bound| call.duration.is_some_and(|duration| holds(duration, bound)))
    };
    let is = |wanted: Option<bool>, actual| wanted.is_none_or(|wanted| wanted == actual);
    one_of(&filter.uids, Some(&call.uid))
        && one_of(&filter.staff_uids, call.staff_uid.as_ref())
        && one_of(&filter.client_uids, call.client_uid.as_ref())
        && one_of(
            &filter.handled_by_staff_uids,
            call.handled_by_staff_uid.as_ref(),
        )
        && one_of(&filter.statuses, Some(&call.status))
        && one_of(&filter.directions, Some(&call.direction))
        && (one_of(&filter.numbers, from) || one_of(&filter.numbers, to))
        && one_of(&filter.from_numbers, from)
        && one_of(&filter.to_numbers, to)
        && is_after(call.created_at, filter.created_after)
        && is_before(call.created_at, filter.created_before)
        && is_after(call.updated_at, filter.updated_after)
        && is_before(call.updated_at, filter.updated_before)
        && is_long(filter.min_duration, |duration, bound| duration >= bound)
        && is_long(filter.max_duration, |duration, bound| duration <= bound)
        && is(filter.handled, call.handled_at.is_some())
        && is(filter.has_recording, call.recording_url.is_some())
        && (filter.show_deleted || call.deleted_at.is_none())
}

/// Whether the value is one of these; of none means any.
fn one_of<T: PartialEq>(values: &[T], value: Option<&T>) -> bool {
    values.is_empty() || value.is_some_and(|value| values.contains(value))
}
