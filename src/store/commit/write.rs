//! The requests that callers submit to the writer, and their results.

use std::{borrow::Cow, sync::Arc};

use crate::domain::{
    Call, Command, ConflictPolicy, Draft, Identifier, Narrowing, PendingCall, Record, Revision,
    Uuid, machine::Rejection,
};

/// One request to write: applied as a whole or not at all.
#[derive(Debug)]
pub struct Write {
    /// What is to be done.
    pub action: Action,
    /// The request ID that the client chose, if any.
    pub request: Option<RequestKey>,
    /// The client's identity; `None` where clients do not authenticate.
    pub principal: Option<Arc<str>>,
    /// The calls that the client may see and change; `None`: all. Narrowed clients import nothing,
    /// and choose no uid for a new call.
    pub narrowing: Option<Arc<Narrowing>>,
}

/// What a request does.
#[derive(Debug)]
pub enum Action {
    /// One command on one call.
    One(Command),
    /// Create a call whose uid was generated just now, so that no other call can have it.
    CreateFresh(Draft),
    /// Create several calls, no two with the same uid.
    CreateAll(Vec<Draft>),
    /// Import several records, no two with the same uid, each by itself: one
    /// that is refused stops no other.
    Import(Arc<[Record]>, ConflictPolicy),
    /// Change nothing, but advance the log's time: every later change has a later time.
    ConfirmTime,
}

/// A request ID and a fingerprint of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    /// The request ID.
    pub id: Uuid,
    /// A hash of the request: the same ID with another hash is an error of the client.
    pub fingerprint: Uuid,
}

/// The result of a write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// The calls as they are now, in the order of the request. Empty when there is no call:
    /// the request allows that, or has purged it.
    pub calls: Vec<Arc<Call>>,
    /// The newest revision among the calls and the request's changes; 0 when
    /// there is neither.
    pub revision: Revision,
    /// What became of each record of an import, in order.
    pub imported: Vec<Result<Imported, RecordError>>,
}

/// What a write of one call would come to.
#[derive(Debug)]
pub enum Preview {
    /// The call would be changed to this.
    Change(Box<PendingCall>),
    /// The call would stay as it is.
    Unchanged(Arc<Call>),
    /// There would be no call.
    Absent,
}

/// A record that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// What was done.
    pub outcome: ImportOutcome,
    /// The call's revision now.
    pub revision: Revision,
}

/// Why a record was not imported. The others are not concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordError {
    /// The state of its call does not allow it.
    Rejected(Rejection),
    /// The database refuses it: a bug, logged where it arose.
    Refused,
}

impl From<Rejection> for RecordError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// What was done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportOutcome {
    /// There is a call now; there was none.
    Created,
    /// The call is now as the record has it.
    Replaced,
    /// It was so already.
    Unchanged,
    /// It is kept as it is.
    Skipped,
}

impl Written {
    /// The result that these calls are.
    pub(crate) fn calls(calls: Vec<Arc<Call>>) -> Self {
        let revision = calls.iter().map(|call| call.revision).max();
        Self {
            calls,
            revision: revision.unwrap_or(0),
            imported: Vec::new(),
        }
    }
}

impl Write {
    /// A write that changes nothing, and moves the log's time on.
    pub(crate) fn confirm_time() -> Self {
        Self {
            action: Action::ConfirmTime,
            request: None,
            principal: None,
            narrowing: None,
        }
    }

    /// Whether it makes a call of every uid that has none, so that the commit
    /// finds out which of these were purged.
    pub(crate) fn creates_missing(&self) -> bool {
        matches!(
            self.action,
            Action::One(Command::Create(_))
                | Action::CreateFresh(_)
                | Action::CreateAll(_)
                | Action::Import(..)
        )
    }

    /// How many changes it makes at most.
    pub(crate) fn len(&self) -> usize {
        match &self.action {
            Action::One(_) | Action::CreateFresh(_) => 1,
            Action::ConfirmTime => 0,
            Action::CreateAll(drafts) => drafts.len(),
            Action::Import(records, _) => records.len(),
        }
    }

    /// The calls that must be read before it is applied.
    pub(crate) fn named_uids(&self) -> impl Iterator<Item = Uuid> {
        let (one, drafts, records): (_, &[Draft], &[Record]) = match &self.action {
            Action::One(command) => (Some(command.uid()), &[], &[]),
            Action::CreateFresh(_) | Action::ConfirmTime => (None, &[], &[]),
            Action::CreateAll(drafts) => (None, drafts, &[]),
            Action::Import(records, _) => (None, &[], records),
        };
        let drafts = drafts.iter().map(|draft| draft.uid);
        one.into_iter()
            .chain(drafts)
            .chain(records.iter().map(|record| record.uid))
    }

    /// The call that the request is about; of several, the first.
    pub(crate) fn first_uid(&self) -> Uuid {
        match &self.action {
            Action::One(command) => command.uid(),
            Action::CreateFresh(draft) => draft.uid,
            Action::CreateAll(_) | Action::Import(..) | Action::ConfirmTime => {
                self.named_uids().next().unwrap_or_default()
            }
        }
    }

    /// The principal as idempotency records have it. Callers with one name may be narrowed to
    /// different calls, and then know nothing of each other's requests. No name has a control
    /// character.
    pub(crate) fn principal_name(&self) -> Cow<'_, str> {
        let name = self.principal.as_deref().unwrap_or_default();
        let Some(narrowing) = &self.narrowing else {
            return name.into();
        };
        let staff = narrowing.staff();
        let staff_uid = staff.map_or("", |staff| staff.staff_uid.as_str());
        let unassigned = staff.is_some_and(|staff| staff.unassigned);
        let client_uid = narrowing.client_uid().map_or("", Identifier::as_str);
        format!("{name}\u{1f}{staff_uid}\u{1f}{unassigned}\u{1f}{client_uid}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::StaffNarrowing;

    #[test]
    fn request_ids_of_one_name_are_those_of_one_narrowing() {
        let uid = |text: &str| Identifier::new(text.to_owned()).expect("it is one");
        let staff = |text, unassigned| StaffNarrowing {
            staff_uid: uid(text),
            unassigned,
        };
        let names = [
            None,
            Narrowing::new(Some(staff("a", false)), None),
            Narrowing::new(Some(staff("a", true)), None),
            Narrowing::new(Some(staff("b", false)), None),
            Narrowing::new(None, Some(uid("a"))),
            Narrowing::new(Some(staff("a", false)), Some(uid("a"))),
        ]
        .map(|narrowing| {
            let write = Write {
                principal: Some("jwt:app".into()),
                narrowing: narrowing.map(Arc::new),
                ..Write::confirm_time()
            };
            write.principal_name().into_owned()
        });
        assert_eq!(names[0], "jwt:app");
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }
}
