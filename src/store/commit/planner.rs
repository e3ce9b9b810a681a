//! Plans a batch: runs writes through the state machine and collects the changes to commit.
//! Pure: no I/O.
//!
//! A call changes at most once in a batch, so that every state that a command meets is a
//! committed one, with a known revision and known times. A write to a call that changes already
//! in this batch is postponed to the next one, and so is a second request with the same request
//! ID.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use tokio::{runtime::Handle, sync::oneshot};

use super::write::{Action, ImportOutcome, Imported, RecordError, RequestKey, Write, Written};
use crate::{
    domain::{
        Call, Change, ChangeKind, Command, ConflictPolicy, Draft, PendingCall, PendingChange,
        Record, Revision, Timestamp, Uuid, machine,
        machine::{CallState, ImportStep, Rejection, Step},
    },
    store::error::WriteError,
};

/// A write, and where its caller waits for the result.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) write: Write,
    pub(crate) reply: oneshot::Sender<Result<Written, WriteError>>,
    /// The runtime of the caller's thread.
    pub(crate) caller: Handle,
}

impl Pending {
    pub(crate) fn answer(self, result: Result<Written, WriteError>) {
        // The caller may have stopped waiting.
        let _ = self.reply.send(result);
    }
}

/// A write and what the state machine made of it.
#[derive(Debug)]
pub(crate) struct PlannedWrite {
    pub(crate) pending: Pending,
    pub(crate) outcome: PlannedOutcome,
}

/// What the state machine made of a write.
#[derive(Debug)]
pub(crate) enum PlannedOutcome {
    /// These of the batch's changes.
    Changes(Range<usize>),
    /// The call already has the values that the write asks for.
    Unchanged(Arc<Call>),
    /// There is no call, which the write allows.
    Absent,
    /// Only the log's time advances.
    Confirmed,
    /// Each record has its own result, and what some did are these of the
    /// batch's changes.
    Imported(Range<usize>, Vec<Result<PlannedRecord, RecordError>>),
    /// Refused.
    Rejected(WriteError),
}

/// What becomes of a record of an import.
#[derive(Debug)]
pub(crate) enum PlannedRecord {
    /// It makes one of the batch's changes.
    Change(ImportOutcome),
    /// It changes nothing.
    Settled(Imported),
}

impl PlannedOutcome {
    fn rejected(place: usize, rejection: Rejection) -> Self {
        Self::Rejected(WriteError::Rejected { place, rejection })
    }

    /// Which of the batch's changes are the write's.
    pub(crate) fn changes(&self) -> Range<usize> {
        match self {
            Self::Changes(range) | Self::Imported(range, _) => range.clone(),
            Self::Unchanged(_) | Self::Absent | Self::Confirmed | Self::Rejected(_) => 0..0,
        }
    }

    /// Whether there is something to commit for it.
    fn is_to_commit(&self) -> bool {
        match self {
            Self::Changes(_) | Self::Confirmed => true,
            Self::Imported(range, _) => !range.is_empty(),
            Self::Unchanged(_) | Self::Absent | Self::Rejected(_) => false,
        }
    }

    /// The result, with the changes that were committed for it.
    fn result(self, changes: impl IntoIterator<Item = Change>) -> Result<Written, WriteError> {
        let mut changes = changes.into_iter();
        let mut written = Written::default();
        match self {
            Self::Changes(_) | Self::Confirmed => {
                for change in changes {
                    written.revision = change.revision;
                    written.calls.extend(change.after);
                }
            }
            Self::Unchanged(call) => return Ok(Written::calls(vec![call])),
            Self::Absent => {}
            Self::Imported(_, records) => {
                let mut imported = |record| match record {
                    PlannedRecord::Settled(imported) => imported,
                    PlannedRecord::Change(outcome) => Imported {
                        outcome,
                        revision: changes.next().map_or(0, |change| change.revision),
                    },
                };
                let records = records.into_iter();
                written.imported = records.map(|record| record.map(&mut imported)).collect();
            }
            Self::Rejected(error) => return Err(error),
        }
        Ok(written)
    }
}

/// The writes and changes of one commit.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The writes that have something to commit, or a request ID to look up or record.
    pub(crate) entries: Vec<PlannedWrite>,
    /// Their changes, in order.
    pub(crate) changes: Vec<PendingChange>,
    /// The calls that were read for them, and the revision of each (0: none).
    pub(crate) reads: Vec<(Uuid, Revision)>,
}

/// The state of a uid that was read. A uid that is not in the map has never had a call.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// A call.
    Call(Arc<Call>),
    /// Its call was purged.
    Purged,
}

/// What was read, by uid.
pub(crate) type States = HashMap<Uuid, Known>;

/// Plans one batch; returns it and the writes that must wait for the next one.
///
/// A write that is rejected or changes nothing, and has no request ID to look up or to record,
/// gets its response here: it is not part of the commit.
pub(crate) fn plan(pending: Vec<Pending>, states: &States) -> (Batch, Vec<Pending>) {
    let mut batch = Batch {
        entries: Vec::with_capacity(pending.len()),
        changes: Vec::with_capacity(pending.len()),
        reads: Vec::new(),
    };
    let mut postponed = Vec::new();
    // The calls that this batch changes, or that a postponed write names.
    let mut taken: HashSet<Uuid> = HashSet::new();
    let mut requests: HashSet<(Uuid, Option<Arc<str>>)> = HashSet::new();
    for pending in pending {
        let request = pending.write.request;
        let twice = request.is_some_and(|RequestKey { id, .. }| {
            !requests.insert((id, pending.write.principal.clone()))
        });
        if twice || pending.write.named_uids().any(|uid| taken.contains(&uid)) {
            // What is named by both this and a later one must not overtake it.
            taken.extend(pending.write.named_uids());
            postponed.push(pending);
            continue;
        }
        let outcome = apply(&pending.write, states, &mut batch);
        let changes = &batch.changes[outcome.changes()];
        taken.extend(changes.iter().map(|change| change.uid));
        if request.is_some() || outcome.is_to_commit() {
            batch.entries.push(PlannedWrite { pending, outcome });
        } else {
            pending.answer(outcome.result([]));
        }
    }
    (batch, postponed)
}

fn apply(write: &Write, states: &States, batch: &mut Batch) -> PlannedOutcome {
    match &write.action {
        Action::CreateFresh(draft) => {
            let start = batch.changes.len();
            match created(write, draft, true) {
                Ok(change) => batch.changes.push(change),
                Err(rejection) => return PlannedOutcome::rejected(0, rejection),
            }
            PlannedOutcome::Changes(start..start + 1)
        }
        Action::One(command) => apply_one(write, command, states, batch),
        Action::ConfirmTime => PlannedOutcome::Confirmed,
        Action::CreateAll(drafts) => match create_all(write, drafts, states) {
            Ok(created) => {
                let start = batch.changes.len();
                batch
                    .reads
                    .extend(drafts.iter().map(|draft| (draft.uid, 0)));
                batch.changes.extend(created);
                PlannedOutcome::Changes(start..batch.changes.len())
            }
            Err((place, rejection)) => PlannedOutcome::rejected(place, rejection),
        },
        Action::Import(records, policy) => {
            let start = batch.changes.len();
            let imported = records
                .iter()
                .map(|record| import(write, record, *policy, states, batch))
                .collect();
            PlannedOutcome::Imported(start..batch.changes.len(), imported)
        }
    }
}

/// The changes that create these calls; which of them is refused first, if any is.
fn create_all(
    write: &Write,
    drafts: &[Draft],
    states: &States,
) -> Result<Vec<PendingChange>, (usize, Rejection)> {
    let last = drafts.len().saturating_sub(1);
    let drafts = drafts.iter().enumerate();
    let created = drafts.map(|(place, draft)| {
        let uid = draft.uid;
        let change = match states.get(&uid) {
            None => created(write, draft, place == last),
            Some(Known::Call(_)) => Err(Rejection::AlreadyExists { uid }),
            Some(Known::Purged) => Err(Rejection::UidPurged { uid }),
        };
        change.map_err(|rejection| (place, rejection))
    });
    created.collect()
}

/// Plans one record. The revision of a record that is written is known once it is committed.
fn import(
    write: &Write,
    record: &Record,
    policy: ConflictPolicy,
    states: &States,
    batch: &mut Batch,
) -> Result<PlannedRecord, RecordError> {
    let (state, call) = state_of(record.uid, states);
    let revision = call.map_or(0, |call| call.revision);
    let settled = |outcome| PlannedRecord::Settled(Imported { outcome, revision });
    let (after, outcome) = match machine::import(state, record, policy)? {
        ImportStep::Create(after) => (after, ImportOutcome::Created),
        ImportStep::Replace(after) => (after, ImportOutcome::Replaced),
        ImportStep::Unchanged => return Ok(settled(ImportOutcome::Unchanged)),
        ImportStep::Keep => return Ok(settled(ImportOutcome::Skipped)),
    };
    batch.reads.push((record.uid, revision));
    let kind = ChangeKind::Imported;
    let change = change(write, kind, call.cloned(), after, true);
    batch.changes.push(change);
    Ok(PlannedRecord::Change(outcome))
}

fn state_of(uid: Uuid, states: &States) -> (CallState<'_>, Option<&Arc<Call>>) {
    match states.get(&uid) {
        None => (CallState::Absent, None),
        Some(Known::Purged) => (CallState::Purged, None),
        Some(Known::Call(call)) => (CallState::Call(call), Some(call)),
    }
}

fn apply_one(
    write: &Write,
    command: &Command,
    states: &States,
    batch: &mut Batch,
) -> PlannedOutcome {
    let uid = command.uid();
    let (state, call) = state_of(uid, states);
    let change = match machine::apply(state, command, write.narrowing.as_deref()) {
        Ok(Step::Change(kind, after)) => change(write, kind, call.cloned(), after, true),
        Ok(Step::Purge) => purged(write, uid),
        Ok(Step::Unchanged) => {
            let call = call.cloned();
            return call.map_or(PlannedOutcome::Absent, PlannedOutcome::Unchanged);
        }
        Ok(Step::Absent) => return PlannedOutcome::Absent,
        Err(rejection) => return PlannedOutcome::rejected(0, rejection),
    };
    batch
        .reads
        .push((uid, call.map_or(0, |call| call.revision)));
    batch.changes.push(change);
    PlannedOutcome::Changes(batch.changes.len() - 1..batch.changes.len())
}

fn created(
    write: &Write,
    draft: &Draft,
    transaction_end: bool,
) -> Result<PendingChange, Rejection> {
    let after = machine::create(draft, write.narrowing.as_deref())?;
    let kind = ChangeKind::Created;
    Ok(change(write, kind, None, after, transaction_end))
}

fn change(
    write: &Write,
    kind: ChangeKind,
    before: Option<Arc<Call>>,
    after: PendingCall,
    transaction_end: bool,
) -> PendingChange {
    PendingChange {
        kind,
        uid: after.uid,
        before,
        after: Some(after),
        actor: write.principal.clone(),
        request_id: write.request.map(|request| request.id),
        transaction_end,
    }
}

fn purged(write: &Write, uid: Uuid) -> PendingChange {
    PendingChange {
        kind: ChangeKind::Purged,
        uid,
        before: None,
        after: None,
        actor: write.principal.clone(),
        request_id: write.request.map(|request| request.id),
        transaction_end: true,
    }
}

impl Batch {
    /// Whether there is nothing to commit and nothing to look up.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the batch apart again, to run its writes anew.
    pub(crate) fn into_pending(self) -> Vec<Pending> {
        self.entries
            .into_iter()
            .map(|entry| entry.pending)
            .collect()
    }

    /// The batch, once it is committed.
    pub(crate) fn commit(self, head_before: Revision, committed_at: Timestamp) -> CommittedWrites {
        let changes = (head_before + 1..).zip(self.changes);
        CommittedWrites {
            entries: self.entries,
            changes: changes
                .map(|(revision, change)| change.commit(revision, committed_at))
                .collect(),
        }
    }
}

/// The writes of a committed batch, whose callers wait for their responses.
#[derive(Debug)]
pub(crate) struct CommittedWrites {
    entries: Vec<PlannedWrite>,
    /// Their changes, in order.
    pub(crate) changes: Vec<Change>,
}

impl CommittedWrites {
    /// The revision of the last change; `None` if nothing but the log's time was moved.
    pub(crate) fn last_revision(&self) -> Option<Revision> {
        self.changes.last().map(|change| change.revision)
    }

    /// The result for each caller.
    pub(crate) fn answers(self) -> impl Iterator<Item = (Pending, Result<Written, WriteError>)> {
        let mut changes = self.changes.into_iter();
        self.entries.into_iter().map(move |entry| {
            let PlannedWrite { pending, outcome } = entry;
            // The entries' ranges follow one another.
            let changes = changes.by_ref().take(outcome.changes().len());
            (pending, outcome.result(changes))
        })
    }
}
