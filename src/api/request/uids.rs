//! UUIDs from the wire, alone and in batches.

use std::collections::HashMap;

use crate::{api::violations::Violations, domain::Uuid};

/// The most items in a batch request.
pub(crate) const MAX_BATCH: usize = 1000;

/// The uids of a batch look-up.
pub(crate) fn batch_uids(uids: &[String], violations: &mut Violations) -> Vec<Uuid> {
    check_batch_len("uids", uids.len(), violations);
    let parsed: Vec<(usize, Uuid)> = uids
        .iter()
        .take(MAX_BATCH)
        .enumerate()
        .filter_map(|(place, text)| {
            Some((place, uid(text, &format!("uids[{place}]"), violations)?))
        })
        .collect();
    refuse_repeated(
        parsed.iter().copied(),
        |place| format!("uids[{place}]"),
        violations,
    );
    parsed.into_iter().map(|(_, uid)| uid).collect()
}

/// A UUID in its canonical form, in any letter case.
pub(crate) fn uid(text: &str, path: &str, violations: &mut Violations) -> Option<Uuid> {
    const HYPHENATED_LEN: usize = 36;
    match Uuid::try_parse(text) {
        Ok(uid) if text.len() == HYPHENATED_LEN => Some(uid),
        _ if text.is_empty() => {
            violations.push(path, "is required");
            None
        }
        _ => {
            violations.push(
                path,
                "must be a UUID such as d290f1ee-6c54-4b01-90e6-d701748f0851",
            );
            None
        }
    }
}

/// A batch has 1 to 1000 items.
pub(crate) fn check_batch_len(path: &str, len: usize, violations: &mut Violations) {
    if !(1..=MAX_BATCH).contains(&len) {
        violations.push(path, format!("must have 1 to {MAX_BATCH} items, not {len}"));
    }
}

/// No uid may be given twice in a batch.
pub(crate) fn refuse_repeated(
    uids: impl Iterator<Item = (usize, Uuid)>,
    path: impl Fn(usize) -> String,
    violations: &mut Violations,
) {
    let mut first_places = HashMap::new();
    for (place, uid) in uids {
        if let Some(first) = first_places.insert(uid, place) {
            violations.push(path(place), format!("repeats the uid of item {first}"));
        }
    }
}
