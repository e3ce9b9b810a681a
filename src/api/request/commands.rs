//! From requests to commands.

use std::mem;

use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use super::{
    fields,
    fields::Values,
    uids::{MAX_BATCH, check_batch_len, refuse_repeated, uid},
};
use crate::{
    api::violations::Violations,
    domain::{
        Attributes, Command, Draft, Field, FieldSet, Identifier, PendingTime, Revision, Timestamp,
        Uuid, command::WhenMissing,
    },
    proto,
    store::{Action, RequestKey, Write},
};

const DEFAULT_PAGE_SIZE: usize = 50;
const MAX_PAGE_SIZE: usize = 1000;

/// A write, and whether it is only to be validated.
pub(crate) struct Parsed {
    pub(crate) write: Write,
    pub(crate) validate_only: bool,
    /// Whether the client chose the uid of a new call.
    pub(crate) chooses_uid: bool,
}

impl Parsed {
    fn new(action: Action, request: Option<RequestKey>) -> Self {
        Self {
            write: Write {
                action,
                request,
                principal: None,
                narrowing: None,
            },
            validate_only: false,
            chooses_uid: false,
        }
    }
}

pub(crate) fn create(
    mut request: proto::CreateVoiceCallRequest,
    now: Timestamp,
) -> Result<Parsed, Violations> {
    let mut violations = Violations::default();
    let request_id = mem::take(&mut request.request_id);
    let key = request_key("CreateVoiceCall", &request_id, &request, &mut violations);
    let draft = draft(request.voice_call, "voice_call", now, &mut violations);
    let (draft, fresh) = violations.or(draft)?;
    let action = if fresh {
        Action::CreateFresh(draft)
    } else {
        Action::One(Command::Create(draft))
    };
    Ok(Parsed {
        validate_only: request.validate_only,
        chooses_uid: !fresh,
        ..Parsed::new(action, key)
    })
}

pub(crate) fn batch_create(
    mut request: proto::BatchCreateVoiceCallsRequest,
    now: Timestamp,
) -> Result<Parsed, Violations> {
    let mut violations = Violations::default();
    let request_id = mem::take(&mut request.request_id);
    let key = request_key(
        "BatchCreateVoiceCalls",
        &request_id,
        &request,
        &mut violations,
    );
    check_batch_len("voice_calls", request.voice_calls.len(), &mut violations);
    let mut drafts = Vec::with_capacity(request.voice_calls.len().min(MAX_BATCH));
    let mut chooses_uid = false;
    for (index, call) in request.voice_calls.into_iter().take(MAX_BATCH).enumerate() {
        let path = format!("voice_calls[{index}]");
        if let Some((draft, fresh)) = draft(Some(call), &path, now, &mut violations) {
            chooses_uid |= !fresh;
            drafts.push((index, draft));
        }
    }
    refuse_repeated(
        drafts.iter().map(|(index, draft)| (*index, draft.uid)),
        |index| format!("voice_calls[{index}].uid"),
        &mut violations,
    );
    let drafts = drafts.into_iter().map(|(_, draft)| draft).collect();
    let action = violations.or(Some(Action::CreateAll(drafts)))?;
    Ok(Parsed {
        chooses_uid,
        ..Parsed::new(action, key)
    })
}

pub(crate) fn update(
    mut request: proto::UpdateVoiceCallRequest,
    now: Timestamp,
) -> Result<Parsed, Violations> {
    let mut violations = Violations::default();
    let request_id = mem::take(&mut request.request_id);
    let key = request_key("UpdateVoiceCall", &request_id, &request, &mut violations);
    let expected_revision = expected_revision(request.expected_revision, &mut violations);
    let Some(call) = request.voice_call else {
        violations.push("voice_call", "is required");
        return Err(violations);
    };
    let uid = uid(&call.uid, "voice_call.uid", &mut violations);
    let paths = request
        .update_mask
        .map(|mask| mask.paths)
        .unwrap_or_default();
    let (fields, replace) = mask(&paths, &call, &mut violations);
    require_named_enums(fields, replace, &call, &mut violations);
    let created_at = request
        .allow_missing
        .then(|| created_at(call.created_at, "voice_call", now, &mut violations));
    // A field that is not written is not validated, unless the call may be created from it.
    let checked = if request.allow_missing {
        Field::WRITABLE.into_iter().collect()
    } else {
        fields
    };
    let values = fields::values(call, checked, "voice_call", &mut violations);
    let uid = violations.or(uid)?;
    let when_missing = match created_at {
        Some(created_at) => when_missing(uid, created_at, values.clone()),
        None => WhenMissing::Refuse,
    };
    let action = Action::One(Command::Update {
        uid,
        patch: values.into_patch(fields),
        expected_revision,
        when_missing,
    });
    Ok(Parsed {
        validate_only: request.validate_only,
        ..Parsed::new(action, key)
    })
}

pub(crate) fn handle(mut request: proto::HandleVoiceCallRequest) -> Result<Parsed, Violations> {
    let mut violations = Violations::default();
    let request_id = mem::take(&mut request.request_id);
    let key = request_key("HandleVoiceCall", &request_id, &request, &mut violations);
    let uid = uid(&request.uid, "uid", &mut violations);
    let by = Identifier::new(request.handled_by_staff_uid)
        .map_err(|error| violations.push("handled_by_staff_uid", error))
        .ok();
    let at = fields::timestamp(request.handled_at, "handled_at", &mut violations);
    let expected_revision = expected_revision(request.expected_revision, &mut violations);
    let (uid, handled_by_staff_uid) = violations.or(uid.zip(by))?;
    let command = Command::Handle {
        uid,
        handled_by_staff_uid,
        handled_at: PendingTime::known_or_commit(at),
        expected_revision,
    };
    Ok(Parsed::new(Action::One(command), key))
}

pub(crate) fn delete(mut request: proto::DeleteVoiceCallRequest) -> Result<Parsed, Violations> {
    let mut violations = Violations::default();
    let request_id = mem::take(&mut request.request_id);
    let key = request_key("DeleteVoiceCall", &request_id, &request, &mut violations);
    let uid = uid(&request.uid, "uid", &mut violations);
    let expected_revision = expected_revision(request.expected_revision, &mut violations);
    let command = Command::Delete {
        uid: violations.or(uid)?,
        expected_revision,
        allow_missing: request.allow_missing,
    };
    Ok(Parsed::new(Action::One(command), key))
}

pub(crate) fn undelete(mut request: proto::UndeleteVoiceCallRequest) -> Result<Parsed, Violations> {
    let mut violations = Violations::default();
    let request_id = mem::take(&mut request.request_id);
    let key = request_key("UndeleteVoiceCall", &request_id, &request, &mut violations);
    let uid = uid(&request.uid, "uid", &mut violations);
    let expected_revision = expected_revision(request.expected_revision, &mut violations);
    let command = Command::Undelete {
        uid: violations.or(uid)?,
        expected_revision,
    };
    Ok(Parsed::new(Action::One(command), key))
}

pub(crate) fn purge(mut request: proto::PurgeVoiceCallRequest) -> Result<Parsed, Violations> {
    let mut violations = Violations::default();
    let request_id = mem::take(&mut request.request_id);
    let key = request_key("PurgeVoiceCall", &request_id, &request, &mut violations);
    let uid = uid(&request.uid, "uid", &mut violations);
    let command = Command::Purge {
        uid: violations.or(uid)?,
    };
    Ok(Parsed::new(Action::One(command), key))
}

/// A min_revision; 0 means that the read does not wait.
pub(crate) fn min_revision(revision: i64, violations: &mut Violations) -> Revision {
    if revision < 0 {
        violations.push("min_revision", "must not be negative");
    }
    revision
}

/// The most items in a page.
pub(crate) fn page_size(page_size: i32, violations: &mut Violations) -> usize {
    match usize::try_from(page_size) {
        Ok(0) => DEFAULT_PAGE_SIZE,
        Ok(size) => size.min(MAX_PAGE_SIZE),
        Err(_) => {
            violations.push("page_size", "must not be negative");
            DEFAULT_PAGE_SIZE
        }
    }
}

/// A call to create, and whether its uid was generated here.
fn draft(
    call: Option<proto::VoiceCall>,
    path: &str,
    now: Timestamp,
    violations: &mut Violations,
) -> Option<(Draft, bool)> {
    let Some(call) = call else {
        violations.push(path, "is required");
        return None;
    };
    let fresh = call.uid.is_empty();
    let uid = if fresh {
        Some(Uuid::now_v7())
    } else {
        uid(&call.uid, &format!("{path}.uid"), violations)
    };
    let created_at = created_at(call.created_at, path, now, violations);
    let attributes = attributes(call, path, violations);
    Some((
        Draft {
            uid: uid?,
            created_at,
            attributes: attributes?,
        },
        fresh,
    ))
}

/// All writable fields of a new call.
pub(crate) fn attributes(
    call: proto::VoiceCall,
    path: &str,
    violations: &mut Violations,
) -> Option<Attributes> {
    if call.direction == 0 {
        violations.push(format!("{path}.direction"), "is required");
    }
    let all = Field::WRITABLE.into_iter().collect();
    fields::values(call, all, path, violations).into_attributes()
}

fn created_at(
    time: Option<prost_types::Timestamp>,
    path: &str,
    now: Timestamp,
    violations: &mut Violations,
) -> PendingTime {
    let path = format!("{path}.created_at");
    PendingTime::known_or_commit(fields::past_timestamp(time, &path, now, violations))
}

/// The fields that a mask names, and whether it is `*`.
fn mask(
    paths: &[String],
    call: &proto::VoiceCall,
    violations: &mut Violations,
) -> (FieldSet, bool) {
    if paths.is_empty() {
        return (fields::present(call), false);
    }
    if paths.iter().any(|path| path == "*") {
        if paths.len() > 1 {
            violations.push("update_mask", "must name either * or fields, not both");
        }
        return (Field::WRITABLE.into_iter().collect(), true);
    }
    let mut fields = FieldSet::default();
    for (index, path) in paths.iter().enumerate() {
        match Field::from_name(path) {
            Some(field) if field.is_writable() => fields.insert(field),
            Some(_) => violations.push(
                format!("update_mask.paths[{index}]"),
                format!("names {path}, which clients cannot write"),
            ),
            None => violations.push(
                format!("update_mask.paths[{index}]"),
                "is not a field of VoiceCall",
            ),
        }
    }
    (fields, false)
}

/// Status and direction cannot be cleared, so a mask that names one requires a value.
fn require_named_enums(
    fields: FieldSet,
    replace: bool,
    call: &proto::VoiceCall,
    violations: &mut Violations,
) {
    let description = if replace {
        "is required to replace the call"
    } else {
        "is named in update_mask and cannot be cleared"
    };
    for (field, value) in [
        (Field::Status, call.status),
        (Field::Direction, call.direction),
    ] {
        if fields.contains(field) && value == 0 {
            violations.push(format!("voice_call.{}", field.name()), description);
        }
    }
}

fn when_missing(uid: Uuid, created_at: PendingTime, values: Values) -> WhenMissing {
    match values.into_attributes() {
        Some(attributes) => WhenMissing::Create(Box::new(Draft {
            uid,
            created_at,
            attributes,
        })),
        None => WhenMissing::RequireDirection,
    }
}

fn expected_revision(revision: i64, violations: &mut Violations) -> Option<Revision> {
    if revision < 0 {
        violations.push("expected_revision", "must not be negative");
    }
    (revision > 0).then_some(revision)
}

/// The id and the fingerprint of a request. The fingerprint is a hash of the method and of
/// the canonical encoding of the request without its id.
fn request_key(
    method: &str,
    request_id: &str,
    request_without_id: &impl Message,
    violations: &mut Violations,
) -> Option<RequestKey> {
    if request_id.is_empty() {
        return None;
    }
    let id = uid(request_id, "request_id", violations)?;
    let mut hash = Xxh3::new();
    hash.update(method.as_bytes());
    hash.update(&request_without_id.encode_to_vec());
    Some(RequestKey {
        id,
        fingerprint: Uuid::from_u128(hash.digest128()),
    })
}
