//! What callers hand to the writer, and what they get back.

use std::sync::Arc;

use crate::domain::{Call, Command, Draft, Revision, Uuid};

/// One request to write: applied as a whole or not at all.
#[derive(Debug)]
pub struct Write {
    /// What is to be done.
    pub action: Action,
    /// The client's name for the request, if it has one.
    pub request: Option<RequestKey>,
    /// Who asks; `None` when nobody had to say who they are.
    pub principal: Option<Arc<str>>,
}

/// What a request does.
#[derive(Debug)]
pub enum Action {
    /// One command on one call.
    One(Command),
    /// Record a call whose uid was made for it just now, so that nobody can
    /// have another call with it.
    CreateFresh(Draft),
    /// Record several calls, no two with the same uid.
    CreateAll(Vec<Draft>),
}

/// A request id and what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    /// The client's name for the request.
    pub id: Uuid,
    /// A hash of the request: the same name with another hash is a mistake.
    pub fingerprint: Uuid,
}

/// The result of a write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// The calls as they are now, in the order of the request. Empty when there
    /// is no call: the client is content with that, or it was purged.
    pub calls: Vec<Arc<Call>>,
    /// The newest revision among the calls and the request's changes; 0 when
    /// there is neither.
    pub revision: Revision,
}

impl Written {
    /// The result that these calls are.
    pub(super) fn calls(calls: Vec<Arc<Call>>) -> Self {
        let revision = calls.iter().map(|call| call.revision).max();
        Self {
            calls,
            revision: revision.unwrap_or(0),
        }
    }
}

impl Write {
    /// Whether all it needs to know of the calls it names is whether they exist,
    /// which the commit checks anyway.
    pub(super) fn only_creates(&self) -> bool {
        matches!(
            self.action,
            Action::One(Command::Create(_)) | Action::CreateFresh(_) | Action::CreateAll(_)
        )
    }

    /// How many changes it makes at most.
    pub(super) fn len(&self) -> usize {
        match &self.action {
            Action::One(_) | Action::CreateFresh(_) => 1,
            Action::CreateAll(drafts) => drafts.len(),
        }
    }

    /// The calls that must be read before it is applied.
    pub(super) fn named_uids(&self) -> impl Iterator<Item = Uuid> {
        let (one, many): (Option<Uuid>, &[Draft]) = match &self.action {
            Action::One(command) => (Some(command.uid()), &[]),
            Action::CreateFresh(_) => (None, &[]),
            Action::CreateAll(drafts) => (None, drafts),
        };
        one.into_iter().chain(many.iter().map(|draft| draft.uid))
    }

    /// The call that the request is about; of several, the first.
    pub(super) fn first_uid(&self) -> Uuid {
        match &self.action {
            Action::One(command) => command.uid(),
            Action::CreateFresh(draft) => draft.uid,
            Action::CreateAll(drafts) => drafts.first().map_or(Uuid::nil(), |draft| draft.uid),
        }
    }

    /// The principal as request records have it.
    pub(super) fn principal_name(&self) -> &str {
        self.principal.as_deref().unwrap_or_default()
    }
}
