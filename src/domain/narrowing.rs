//! Which calls a caller may see and change, where these are not all calls. The store compiles the
//! same rule to SQL; a property test holds both against each other.

use super::{Attributes, Identifier};

/// Narrows a caller to the calls of one member of staff, of one client, or of both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Narrowing {
    /// Calls that this member of staff answered or handled.
    Staff(StaffNarrowing),
    /// Calls that this client made.
    Client(Identifier),
    /// Calls that this client made, and that this member of staff answered or handled.
    Both(StaffNarrowing, Identifier),
}

/// Narrows a caller to the calls of one member of staff.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StaffNarrowing {
    /// Who answered or handled the calls.
    pub staff_uid: Identifier,
    /// Also calls that nobody has answered or handled yet.
    pub unassigned: bool,
}

impl Narrowing {
    /// The narrowing to these; `None` to neither, which does not narrow.
    #[must_use]
    pub fn new(staff: Option<StaffNarrowing>, client_uid: Option<Identifier>) -> Option<Self> {
        Some(match (staff, client_uid) {
            (Some(staff), Some(client_uid)) => Self::Both(staff, client_uid),
            (Some(staff), None) => Self::Staff(staff),
            (None, Some(client_uid)) => Self::Client(client_uid),
            (None, None) => return None,
        })
    }

    /// The member of staff whose calls they are.
    #[must_use]
    pub fn staff(&self) -> Option<&StaffNarrowing> {
        match self {
            Self::Staff(staff) | Self::Both(staff, _) => Some(staff),
            Self::Client(_) => None,
        }
    }

    /// The client whose calls they are.
    #[must_use]
    pub fn client_uid(&self) -> Option<&Identifier> {
        match self {
            Self::Client(client_uid) | Self::Both(_, client_uid) => Some(client_uid),
            Self::Staff(_) => None,
        }
    }

    /// Whether a call with these attributes is one of theirs.
    #[must_use]
    pub fn covers<T>(&self, call: &Attributes<T>) -> bool {
        self.staff().is_none_or(|staff| staff.covers(call))
            && self
                .client_uid()
                .is_none_or(|client_uid| call.client_uid.as_ref() == Some(client_uid))
    }
}

impl StaffNarrowing {
    fn covers<T>(&self, call: &Attributes<T>) -> bool {
        let is_theirs = |uid: &Option<Identifier>| uid.as_ref() == Some(&self.staff_uid);
        is_theirs(&call.staff_uid)
            || is_theirs(&call.handled_by_staff_uid)
            || self.unassigned && is_unassigned(call)
    }
}

/// Whether nobody has answered or handled the call yet.
#[must_use]
pub fn is_unassigned<T>(call: &Attributes<T>) -> bool {
    call.staff_uid.is_none() && call.handled_by_staff_uid.is_none() && call.handled_at.is_none()
}
