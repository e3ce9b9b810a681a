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
}

impl ChangeKind {
    /// The word for it in SQL and in logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Handled => "handled",
            Self::Deleted => "deleted",
            Self::Undeleted => "undeleted",
        }
    }
}

/// One change, as the state machine prepares it and the change log keeps it.
#[derive(Debug, Clone)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The state before; `None` when the call is new.
    pub before: Option<Arc<Call>>,
    /// The state after.
    pub after: Arc<Call>,
    /// Who did it; `None` when nobody had to say who they are.
    pub actor: Option<Arc<str>>,
    /// By which request, if the client named it.
    pub request_id: Option<Uuid>,
    /// Whether it is the last change of its request.
    pub transaction_end: bool,
    /// When it was committed.
    pub changed_at: Timestamp,
}

impl Change {
    /// The change's position in the log; 0 until it is committed.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.after.revision
    }
}
