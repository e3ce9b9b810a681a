//! What callers hand to the writer, and what they get back.

use std::sync::Arc;

use crate::domain::{Call, Command, Draft, Uuid};

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

/// The result of a write: the calls as they are now, in the order of the
/// request. Empty when there is no call and the client is content with that.
pub type Written = Vec<Arc<Call>>;

impl Write {
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
