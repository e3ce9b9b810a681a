//! Changes that are not committed yet: what the state machine makes. The commit
//! decides the revision and the time, and `commit` puts them in, once.

use std::sync::Arc;

use super::{
    Attributes, Call, Change, ChangeKind, Field, FieldSet, PendingTime, Revision, Timestamp, Uuid,
};

/// A call as a change leaves it; a [`Call`] once that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the same as those of a call")]
pub struct PendingCall {
    pub uid: Uuid,
    pub created_at: PendingTime,
    pub updated_at: PendingTime,
    pub deleted_at: Option<PendingTime>,
    pub attributes: Attributes<PendingTime>,
}

impl PendingCall {
    /// The call, once it is committed.
    #[must_use]
    pub fn commit(self, revision: Revision, committed_at: Timestamp) -> Call {
        Call {
            uid: self.uid,
            created_at: self.created_at.resolve(committed_at),
            updated_at: self.updated_at.resolve(committed_at),
            deleted_at: self.deleted_at.map(|time| time.resolve(committed_at)),
            attributes: self.attributes.resolve(committed_at),
            revision,
        }
    }

    /// The fields in which this state differs from the one `before`. The
    /// revision is always one of them, and so is a time that the commit decides.
    #[must_use]
    pub fn changed_fields(&self, before: &Call) -> FieldSet {
        let own = FieldSet::where_true([
            (Field::Uid, self.uid != before.uid),
            (
                Field::CreatedAt,
                self.created_at != before.created_at.into(),
            ),
            (
                Field::UpdatedAt,
                self.updated_at != before.updated_at.into(),
            ),
            (
                Field::DeletedAt,
                self.deleted_at != before.deleted_at.map(Into::into),
            ),
            (Field::Revision, true),
        ]);
        own.union(self.attributes.changed_fields(&before.attributes))
    }
}

impl Attributes<PendingTime> {
    /// The attributes, given the time of the commit.
    #[must_use]
    pub fn resolve(self, committed_at: Timestamp) -> Attributes {
        let handled_at = self.handled_at.map(|time| time.resolve(committed_at));
        self.with_handled_at(handled_at)
    }
}

impl From<Attributes> for Attributes<PendingTime> {
    fn from(attributes: Attributes) -> Self {
        let handled_at = attributes.handled_at.map(PendingTime::Known);
        attributes.with_handled_at(handled_at)
    }
}

/// A change that is to be committed; a [`Change`] once it is.
#[derive(Debug)]
pub struct PendingChange {
    /// What happens.
    pub kind: ChangeKind,
    /// To which call.
    pub uid: Uuid,
    /// The state before; `None` when the call is new, or purged now.
    pub before: Option<Arc<Call>>,
    /// The state after; `None` when the call is purged now.
    pub after: Option<PendingCall>,
    /// The client that makes it; `None` where clients do not authenticate.
    pub actor: Option<Arc<str>>,
    /// The request ID, if the client gave one.
    pub request_id: Option<Uuid>,
    /// Whether it is the last change of its request.
    pub transaction_end: bool,
}

impl PendingChange {
    /// The change, once it is committed.
    #[must_use]
    pub fn commit(self, revision: Revision, committed_at: Timestamp) -> Change {
        let after = self.after.map(|call| call.commit(revision, committed_at));
        Change {
            revision,
            kind: Some(self.kind),
            uid: self.uid,
            before: self.before,
            after: after.map(Arc::new),
            actor: self.actor,
            request_id: self.request_id,
            transaction_end: self.transaction_end,
            changed_at: committed_at,
        }
    }
}
