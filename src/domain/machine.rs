//! The state machine: what a command makes of a call. Pure; the store runs it
//! and commits what comes out.
//!
//! Checks come in one order for every command, so that the first thing that is
//! wrong is always the same: does the call exist, is it at the expected
//! revision, does its state allow the command.
//!
//! For a caller who is narrowed to some calls, there are no others: a call that is not one of
//! theirs, or was purged, does not exist, and none may be made or changed into such a one.

use super::{
    Attributes, Call, ChangeKind, Command, ConflictPolicy, Draft, Identifier, Narrowing, Patch,
    PendingCall, PendingTime, Record, Revision, Status, Uuid,
    command::{RecordTimes, WhenMissing},
};

/// The state of a uid.
#[derive(Debug, Clone, Copy)]
pub enum CallState<'a> {
    /// It has never had a call.
    Absent,
    /// A call.
    Call(&'a Call),
    /// Its call was purged; the uid stays reserved.
    Purged,
}

impl<'a> From<Option<&'a Call>> for CallState<'a> {
    fn from(call: Option<&'a Call>) -> Self {
        call.map_or(Self::Absent, Self::Call)
    }
}

/// What a command comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and most are changes"
)]
pub enum Step {
    /// The call is to be changed to this.
    Change(ChangeKind, PendingCall),
    /// The call is to be erased.
    Purge,
    /// The call already has the values that the command asks for.
    Unchanged,
    /// There is no call, which the command allows.
    Absent,
}

/// What the import of a record comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportStep {
    /// The call is to be created.
    Create(PendingCall),
    /// The call is to be replaced by this.
    Replace(PendingCall),
    /// The call is as the record has it already.
    Unchanged,
    /// The call is not as the record has it, and is kept.
    Keep,
}

/// Why a command is refused. None of these changes anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such call.
    #[error("there is no call {uid}")]
    NotFound {
        /// The call that was named.
        uid: Uuid,
    },
    /// The uid is taken.
    #[error("call {uid} already exists")]
    AlreadyExists {
        /// The call that was named.
        uid: Uuid,
    },
    /// The call was purged.
    #[error("call {uid} was purged")]
    Purged {
        /// The call that was named.
        uid: Uuid,
    },
    /// The uid was that of a purged call, and stays taken.
    #[error("call {uid} was purged, and its uid cannot be used again")]
    UidPurged {
        /// The call that was named.
        uid: Uuid,
    },
    /// The call is not deleted.
    #[error("call {uid} is not deleted")]
    NotDeleted {
        /// The call that was named.
        uid: Uuid,
    },
    /// The call is deleted.
    #[error("call {uid} is deleted; undelete it first")]
    Deleted {
        /// The call that was named.
        uid: Uuid,
    },
    /// A closed call cannot be opened again.
    #[error("call {uid} is closed ({}) and cannot become an incoming call again", status.word())]
    IllegalStatusChange {
        /// The call that was named.
        uid: Uuid,
        /// The status it has.
        status: Status,
    },
    /// Another member of staff handled the call.
    #[error("call {uid} was handled by another member of staff; to take it over, update the call")]
    AlreadyHandled {
        /// The call that was named.
        uid: Uuid,
    },
    /// The call is not at the expected revision.
    #[error("call {uid} is at revision {current_revision}, not at the expected revision")]
    RevisionMismatch {
        /// The call that was named.
        uid: Uuid,
        /// Where it is; 0 when there is no call.
        current_revision: Revision,
    },
    /// The caller is narrowed to some calls, and this would go beyond them.
    #[error("the credentials are narrowed to the calls of one person, and do not allow this write")]
    OutOfScope,
    /// The call is missing, and cannot be created without a direction.
    #[error("call {uid} does not exist; to create it, set direction")]
    DirectionRequired {
        /// The call that was named.
        uid: Uuid,
    },
}

/// What `command` of a caller with this narrowing makes of the call's present `state`.
///
/// # Errors
/// [`Rejection`]: the command does not fit the state, or goes beyond the narrowing.
pub fn apply<'a>(
    state: impl Into<CallState<'a>>,
    command: &Command,
    narrowing: Option<&Narrowing>,
) -> Result<Step, Rejection> {
    match narrowing {
        None => apply_to_any(state.into(), command),
        Some(narrowing) => apply_to_theirs(state.into(), command, narrowing),
    }
}

/// For a caller who is narrowed. What is refused whatever the state is, is refused first, so that
/// the refusal tells nothing of it.
fn apply_to_theirs(
    state: CallState<'_>,
    command: &Command,
    narrowing: &Narrowing,
) -> Result<Step, Rejection> {
    let is_allowed = match command {
        Command::Create(_) | Command::Purge { .. } => false,
        Command::Handle {
            handled_by_staff_uid: by,
            ..
        } => narrowing.staff().is_none_or(|staff| staff.staff_uid == *by),
        Command::Update { .. } | Command::Delete { .. } | Command::Undelete { .. } => true,
    };
    if !is_allowed {
        return Err(Rejection::OutOfScope);
    }
    let before = match state {
        CallState::Call(call) if narrowing.covers(&call.attributes) => state,
        CallState::Call(_) | CallState::Absent | CallState::Purged => CallState::Absent,
    };
    let step = apply_to_any(before, command)?;
    match (before, &step) {
        // The uid of a new call would be the caller's choice.
        (CallState::Absent, Step::Change(..)) => Err(Rejection::OutOfScope),
        (_, Step::Change(_, after)) if !narrowing.covers(&after.attributes) => {
            Err(Rejection::OutOfScope)
        }
        _ => Ok(step),
    }
}

fn apply_to_any(state: CallState<'_>, command: &Command) -> Result<Step, Rejection> {
    let uid = command.uid();
    let call = match state {
        CallState::Absent => return apply_to_missing(uid, command),
        CallState::Purged => return apply_to_purged(uid, command),
        CallState::Call(call) => call,
    };
    if let Some(expected) = command.expected_revision()
        && expected != call.revision
    {
        return Err(Rejection::RevisionMismatch {
            uid,
            current_revision: call.revision,
        });
    }
    match command {
        Command::Create(_) => Err(Rejection::AlreadyExists { uid }),
        Command::Update { patch, .. } => update(call, patch),
        Command::Handle {
            handled_by_staff_uid,
            handled_at,
            ..
        } => handle(call, handled_by_staff_uid, *handled_at),
        Command::Delete { allow_missing, .. } => delete(call, *allow_missing),
        Command::Undelete { .. } => undelete(call),
        Command::Purge { .. } => Ok(Step::Purge),
    }
}

/// What becomes of a record that is imported. The rules for changes of state do not apply: the
/// system that it comes from had rules of its own.
///
/// # Errors
/// [`Rejection::UidPurged`].
pub fn import(
    state: CallState<'_>,
    record: &Record,
    policy: ConflictPolicy,
) -> Result<ImportStep, Rejection> {
    match state {
        CallState::Absent => Ok(ImportStep::Create(take(record))),
        CallState::Purged => Err(Rejection::UidPurged { uid: record.uid }),
        CallState::Call(call) => Ok(replace(call, record, policy)),
    }
}

fn apply_to_purged(uid: Uuid, command: &Command) -> Result<Step, Rejection> {
    match command {
        Command::Delete {
            allow_missing: true,
            ..
        } => Ok(Step::Absent),
        Command::Create(_)
        | Command::Update {
            when_missing: WhenMissing::Create(_) | WhenMissing::RequireDirection,
            ..
        } => Err(Rejection::UidPurged { uid }),
        Command::Update { .. }
        | Command::Handle { .. }
        | Command::Delete { .. }
        | Command::Undelete { .. }
        | Command::Purge { .. } => Err(Rejection::Purged { uid }),
    }
}

fn apply_to_missing(uid: Uuid, command: &Command) -> Result<Step, Rejection> {
    let draft = match command {
        Command::Create(draft) => draft,
        Command::Delete {
            allow_missing: true,
            ..
        } => return Ok(Step::Absent),
        Command::Update {
            when_missing: WhenMissing::Create(_) | WhenMissing::RequireDirection,
            expected_revision: Some(_),
            ..
        } => {
            return Err(Rejection::RevisionMismatch {
                uid,
                current_revision: 0,
            });
        }
        Command::Update {
            when_missing: WhenMissing::Create(draft),
            ..
        } => draft,
        Command::Update {
            when_missing: WhenMissing::RequireDirection,
            ..
        } => return Err(Rejection::DirectionRequired { uid }),
        Command::Update { .. }
        | Command::Handle { .. }
        | Command::Delete { .. }
        | Command::Undelete { .. }
        | Command::Purge { .. } => return Err(Rejection::NotFound { uid }),
    };
    Ok(Step::Change(ChangeKind::Created, created(draft)))
}

/// The call that a draft becomes whose uid no other call has.
///
/// # Errors
/// [`Rejection::OutOfScope`]: it is not one that a caller with this narrowing may make.
pub fn create(draft: &Draft, narrowing: Option<&Narrowing>) -> Result<PendingCall, Rejection> {
    let is_theirs = narrowing.is_none_or(|narrowing| narrowing.covers(&draft.attributes));
    is_theirs
        .then(|| created(draft))
        .ok_or(Rejection::OutOfScope)
}

fn created(draft: &Draft) -> PendingCall {
    PendingCall {
        uid: draft.uid,
        created_at: draft.created_at,
        updated_at: PendingTime::AtCommit,
        deleted_at: None,
        attributes: draft.attributes.clone().into(),
    }
}

/// The call that a record becomes.
fn take(record: &Record) -> PendingCall {
    PendingCall {
        uid: record.uid,
        created_at: PendingTime::known_or_commit(record.times.map(|times| times.created_at)),
        updated_at: PendingTime::known_or_commit(record.times.map(|times| times.updated_at)),
        deleted_at: record.deleted_at.map(PendingTime::Known),
        attributes: record.attributes.clone().into(),
    }
}

fn replace(call: &Call, record: &Record, policy: ConflictPolicy) -> ImportStep {
    // A record without times has nothing to say of the call's.
    let times = record.times.unwrap_or(RecordTimes {
        created_at: call.created_at,
        updated_at: call.updated_at,
    });
    let is_same = call.attributes == record.attributes
        && call.deleted_at == record.deleted_at
        && call.created_at == times.created_at
        && call.updated_at == times.updated_at;
    let replaces = match policy {
        ConflictPolicy::Replace => true,
        ConflictPolicy::Skip => false,
        // One without times is as new as its import.
        ConflictPolicy::ReplaceIfNewer => {
            record.times.is_none() || call.updated_at < times.updated_at
        }
    };
    match (is_same, replaces) {
        (true, _) => ImportStep::Unchanged,
        (false, false) => ImportStep::Keep,
        (false, true) => {
            let mut after = take(record);
            if record.times.is_none() {
                after.created_at = call.created_at.into();
            }
            ImportStep::Replace(after)
        }
    }
}

fn update(call: &Call, patch: &Patch) -> Result<Step, Rejection> {
    refuse_deleted(call)?;
    let mut attributes = call.attributes.clone();
    patch.apply(&mut attributes);
    if attributes == call.attributes {
        return Ok(Step::Unchanged);
    }
    if attributes.status.is_open() && !call.attributes.status.is_open() {
        return Err(Rejection::IllegalStatusChange {
            uid: call.uid,
            status: call.attributes.status.clone(),
        });
    }
    let after = changed(call, attributes.into());
    Ok(Step::Change(ChangeKind::Updated, after))
}

fn handle(call: &Call, by: &Identifier, at: PendingTime) -> Result<Step, Rejection> {
    refuse_deleted(call)?;
    match &call.attributes.handled_by_staff_uid {
        // Handled is the pair: a call that only names who is not handled yet,
        // so this call of the RPC completes it.
        Some(present) if present == by && call.attributes.handled_at.is_some() => {
            return Ok(Step::Unchanged);
        }
        Some(present) if present != by => {
            return Err(Rejection::AlreadyHandled { uid: call.uid });
        }
        _ => {}
    }
    let mut attributes = call.attributes.clone().with_handled_at(Some(at));
    attributes.handled_by_staff_uid = Some(by.clone());
    let after = changed(call, attributes);
    Ok(Step::Change(ChangeKind::Handled, after))
}

fn delete(call: &Call, allow_missing: bool) -> Result<Step, Rejection> {
    if call.deleted_at.is_some() && allow_missing {
        return Ok(Step::Unchanged);
    }
    refuse_deleted(call)?;
    let after = PendingCall {
        deleted_at: Some(PendingTime::AtCommit),
        ..changed(call, call.attributes.clone().into())
    };
    Ok(Step::Change(ChangeKind::Deleted, after))
}

fn undelete(call: &Call) -> Result<Step, Rejection> {
    if call.deleted_at.is_none() {
        return Err(Rejection::NotDeleted { uid: call.uid });
    }
    let after = PendingCall {
        deleted_at: None,
        ..changed(call, call.attributes.clone().into())
    };
    Ok(Step::Change(ChangeKind::Undeleted, after))
}

/// The call with these attributes, changed now.
fn changed(call: &Call, attributes: Attributes<PendingTime>) -> PendingCall {
    PendingCall {
        uid: call.uid,
        created_at: call.created_at.into(),
        updated_at: PendingTime::AtCommit,
        deleted_at: call.deleted_at.map(PendingTime::Known),
        attributes,
    }
}

fn refuse_deleted(call: &Call) -> Result<(), Rejection> {
    if call.deleted_at.is_some() {
        Err(Rejection::Deleted { uid: call.uid })
    } else {
        Ok(())
    }
}
