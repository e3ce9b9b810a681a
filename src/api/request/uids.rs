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
        .filter_map(|(index, text)| {
            Some((index, uid(text, &format!("uids[{index}]"), violations)?))
        })
        .collect();
    refuse_repeated(
        parsed.iter().copied(),
        |index| format!("uids[{index}]"),
        violations,
    );
    parsed.into_iter().map(|(_, uid)| uid).collect()
}

/// A UUID in its canonical form of 36 characters, in any letter case.
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

/// Reports a batch that does not have 1 to 1000 items.
pub(crate) fn check_batch_len(path: &str, len: usize, violations: &mut Violations) {
    if !(1..=MAX_BATCH).contains(&len) {
        violations.push(path, format!("must have 1 to {MAX_BATCH} items, not {len}"));
    }
}

/// Reports uids that occur more than once in a batch.
pub(crate) fn refuse_repeated(
    uids: impl Iterator<Item = (usize, Uuid)>,
    path: impl Fn(usize) -> String,
    violations: &mut Violations,
) {
    let mut first_indexes = HashMap::new();
    for (index, uid) in uids {
        if let Some(first) = first_indexes.insert(uid, index) {
            violations.push(path(index), format!("repeats the uid of item {first}"));
        }
    }
}
