//! Commands: what a client asks to be done to a call, parsed and complete.

use super::{
    Attributes, Direction, Identifier, PendingTime, PhoneNumber, Revision, Seconds, Status,
    Summary, Timestamp, Url, Uuid,
};

/// A call that does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its identity.
    pub uid: Uuid,
    /// When it was created.
    pub created_at: PendingTime,
    /// The rest.
    pub attributes: Attributes,
}

/// A call as another system has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its identity.
    pub uid: Uuid,
    /// When it was created and when it last changed; `None`: the other system
    /// does not say.
    pub times: Option<RecordTimes>,
    /// When it was deleted, if it is.
    pub deleted_at: Option<Timestamp>,
    /// The rest.
    pub attributes: Attributes,
}

/// When a record's call was created and last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the same as those of a call")]
pub struct RecordTimes {
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What becomes of a record whose call exists already and is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictPolicy {
    /// It replaces a call that was updated before it.
    ReplaceIfNewer,
    /// It replaces the call.
    Replace,
    /// The call is kept.
    Skip,
}

/// What becomes of a field that may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Edit<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It becomes absent.
    Clear,
    /// It gets this value.
    Set(T),
}

impl<T: Clone> Edit<T> {
    fn apply(&self, field: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(value.clone()),
        }
    }
}

/// New values for some of a call's attributes. Status and direction cannot be
/// cleared: `None` keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    missing_docs,
    reason = "the values are documented as fields of Attributes"
)]
pub struct Patch {
    pub duration: Edit<Seconds>,
    pub status: Option<Status>,
    pub direction: Option<Direction>,
    pub staff_uid: Edit<Identifier>,
    pub client_uid: Edit<Identifier>,
    pub from_number: Edit<PhoneNumber>,
    pub to_number: Edit<PhoneNumber>,
    pub recording_url: Edit<Url>,
    pub call_summary: Edit<Summary>,
    pub external_app_url: Edit<Url>,
    pub handled_by_staff_uid: Edit<Identifier>,
    pub handled_at: Edit<Timestamp>,
}

impl Patch {
    /// Writes the new values into `target`.
    pub fn apply(&self, target: &mut Attributes) {
        self.duration.apply(&mut target.duration);
        if let Some(status) = &self.status {
            target.status.clone_from(status);
        }
        if let Some(direction) = &self.direction {
            target.direction.clone_from(direction);
        }
        self.staff_uid.apply(&mut target.staff_uid);
        self.client_uid.apply(&mut target.client_uid);
        self.from_number.apply(&mut target.from_number);
        self.to_number.apply(&mut target.to_number);
        self.recording_url.apply(&mut target.recording_url);
        self.call_summary.apply(&mut target.call_summary);
        self.external_app_url.apply(&mut target.external_app_url);
        self.handled_by_staff_uid
            .apply(&mut target.handled_by_staff_uid);
        self.handled_at.apply(&mut target.handled_at);
    }
}

/// What an update does when the call is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhenMissing {
    /// Refuse.
    Refuse,
    /// Create this call.
    Create(Box<Draft>),
    /// Refuse, because a call cannot be created without a direction.
    RequireDirection,
}

/// What is to be done to one call.
///
/// `expected_revision` is `None` for "whatever it is".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Record a new call.
    Create(Draft),
    /// Correct a call.
    Update {
        /// Which call.
        uid: Uuid,
        /// The new values.
        patch: Patch,
        /// The revision the call must be at.
        expected_revision: Option<Revision>,
        /// What to do when there is none.
        when_missing: WhenMissing,
    },
    /// Mark a call as handled.
    Handle {
        /// Which call.
        uid: Uuid,
        /// By whom.
        handled_by_staff_uid: Identifier,
        /// When.
        handled_at: PendingTime,
        /// The revision the call must be at.
        expected_revision: Option<Revision>,
    },
    /// Delete a call softly.
    Delete {
        /// Which call.
        uid: Uuid,
        /// The revision the call must be at.
        expected_revision: Option<Revision>,
        /// Whether it may already be deleted, or not exist.
        allow_missing: bool,
    },
    /// Restore a deleted call.
    Undelete {
        /// Which call.
        uid: Uuid,
        /// The revision the call must be at.
        expected_revision: Option<Revision>,
    },
    /// Erase a call and all that is known of it.
    Purge {
        /// Which call.
        uid: Uuid,
    },
}

impl Command {
    /// Which call is meant.
    #[must_use]
    pub const fn uid(&self) -> Uuid {
        match self {
            Self::Create(draft) => draft.uid,
            Self::Update { uid, .. }
            | Self::Handle { uid, .. }
            | Self::Delete { uid, .. }
            | Self::Undelete { uid, .. }
            | Self::Purge { uid } => *uid,
        }
    }

    /// The revision that the call must be at, if any.
    #[must_use]
    pub const fn expected_revision(&self) -> Option<Revision> {
        match self {
            Self::Create(_) | Self::Purge { .. } => None,
            Self::Update {
                expected_revision, ..
            }
            | Self::Handle {
                expected_revision, ..
            }
            | Self::Delete {
                expected_revision, ..
            }
            | Self::Undelete {
                expected_revision, ..
            } => *expected_revision,
        }
    }
}
