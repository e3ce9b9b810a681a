//! Changes: what the change log is made of.

use std::sync::Arc;

use super::{Call, Revision, Timestamp, Uuid};

/// What happened to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was recorded.
    Created,
    /// Its attributes changed.
    Updated,
    /// It was marked as handled.
    Handled,
    /// It was deleted.
    Deleted,
    /// It was restored.
    Undeleted,
    /// It was erased, and all that the log held of it.
    Purged,
    /// It was recorded or replaced by an import.
    Imported,
}

impl ChangeKind {
    /// Every kind this release knows.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Updated,
        Self::Handled,
        Self::Deleted,
        Self::Undeleted,
        Self::Purged,
        Self::Imported,
    ];

    /// The word for it in SQL and in logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Handled => "handled",
            Self::Deleted => "deleted",
            Self::Undeleted => "undeleted",
            Self::Purged => "purged",
            Self::Imported => "imported",
        }
    }

    /// The kind with this word; `None`: one that a newer release wrote.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// One change, as the change log keeps it.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its position in the log.
    pub revision: Revision,
    /// What happened; `None` is something that a newer release knows.
    pub kind: Option<ChangeKind>,
    /// To which call.
    pub uid: Uuid,
    /// The state before; `None` when the call is new, or purged since.
    pub before: Option<Arc<Call>>,
    /// The state after; `None` when the call is purged, now or since.
    pub after: Option<Arc<Call>>,
    /// The client that made it; `None` where clients do not authenticate.
    pub actor: Option<Arc<str>>,
    /// By which request, if the client named it.
    pub request_id: Option<Uuid>,
    /// Whether it is the last change of its request.
    pub transaction_end: bool,
    /// When it was committed.
    pub changed_at: Timestamp,
}

impl Change {
    /// The approximate size in memory, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let states = [&self.before, &self.after];
        let states = states.into_iter().flatten().map(|call| call.size());
        size_of::<Self>() + states.sum::<usize>()
    }

    /// The change without anything of the call's content, as it stands in the
    /// log once the call is purged.
    #[must_use]
    pub fn erased(&self) -> Self {
        Self {
            before: None,
            after: None,
            ..self.clone()
        }
    }
}
