//! What a client wants done to a call, parsed and complete.

use super::{
    Attributes, Direction, Field, FieldSet, Identifier, PhoneNumber, Revision, Seconds, Status,
    Summary, Timestamp, Url, Uuid,
};

/// A call that does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its identity.
    pub uid: Uuid,
    /// When it was created; [`Timestamp::AT_COMMIT`] for now.
    pub created_at: Timestamp,
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

/// New values for some of a call's attributes.
///
/// Only the fields in `fields` are written. A field that is in the set and
/// `None` is cleared, except `status` and `direction`, which cannot be absent:
/// the parser makes sure that they have a value when they are named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    missing_docs,
    reason = "the values are documented as fields of Attributes"
)]
pub struct Patch {
    /// Which fields are written: a subset of [`Field::WRITABLE`].
    pub fields: FieldSet,
    pub duration: Option<Seconds>,
    pub status: Option<Status>,
    pub direction: Option<Direction>,
    pub staff_uid: Option<Identifier>,
    pub client_uid: Option<Identifier>,
    pub from_number: Option<PhoneNumber>,
    pub to_number: Option<PhoneNumber>,
    pub recording_url: Option<Url>,
    pub call_summary: Option<Summary>,
    pub external_app_url: Option<Url>,
    pub handled_by_staff_uid: Option<Identifier>,
    pub handled_at: Option<Timestamp>,
}

impl Patch {
    /// Writes the patch's fields into `target`.
    pub fn apply(&self, target: &mut Attributes) {
        for field in self.fields.iter() {
            match field {
                Field::Duration => target.duration = self.duration,
                Field::Status => self.status.clone_into_if_some(&mut target.status),
                Field::Direction => self.direction.clone_into_if_some(&mut target.direction),
                Field::StaffUid => target.staff_uid.clone_from(&self.staff_uid),
                Field::ClientUid => target.client_uid.clone_from(&self.client_uid),
                Field::FromNumber => target.from_number.clone_from(&self.from_number),
                Field::ToNumber => target.to_number.clone_from(&self.to_number),
                Field::RecordingUrl => target.recording_url.clone_from(&self.recording_url),
                Field::CallSummary => target.call_summary.clone_from(&self.call_summary),
                Field::ExternalAppUrl => target.external_app_url.clone_from(&self.external_app_url),
                Field::HandledByStaffUid => {
                    target
                        .handled_by_staff_uid
                        .clone_from(&self.handled_by_staff_uid);
                }
                Field::HandledAt => target.handled_at = self.handled_at,
                Field::Uid
                | Field::CreatedAt
                | Field::UpdatedAt
                | Field::DeletedAt
                | Field::Revision => {}
            }
        }
    }

    /// All attributes, as a new call needs them: an absent status is
    /// [`Status::IncomingCall`]. `None` when the direction is absent.
    #[must_use]
    pub fn into_attributes(self) -> Option<Attributes> {
        Some(Attributes {
            duration: self.duration,
            status: self.status.unwrap_or(Status::IncomingCall),
            direction: self.direction?,
            staff_uid: self.staff_uid,
            client_uid: self.client_uid,
            from_number: self.from_number,
            to_number: self.to_number,
            recording_url: self.recording_url,
            call_summary: self.call_summary,
            external_app_url: self.external_app_url,
            handled_by_staff_uid: self.handled_by_staff_uid,
            handled_at: self.handled_at,
        })
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
        /// When; [`Timestamp::AT_COMMIT`] for now.
        handled_at: Timestamp,
        /// The revision the call must be at.
        expected_revision: Option<Revision>,
    },
    /// Delete a call softly.
    Delete {
        /// Which call.
        uid: Uuid,
        /// The revision the call must be at.
        expected_revision: Option<Revision>,
        /// Be content when it is already deleted or never was.
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

    /// The revision the call must be at, if the client cares.
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

trait CloneIntoIfSome<T> {
    fn clone_into_if_some(&self, target: &mut T);
}

impl<T: Clone> CloneIntoIfSome<T> for Option<T> {
    fn clone_into_if_some(&self, target: &mut T) {
        if let Some(value) = self {
            target.clone_from(value);
        }
    }
}
