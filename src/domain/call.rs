//! The call itself, as `voice_call_object` has it.

use super::{Field, FieldSet, Identifier, PhoneNumber, Revision, Summary, Timestamp, Url, Uuid};

/// How a call stands or ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Status {
    /// Coming in or going on: the only open status.
    IncomingCall,
    /// A member of staff took the call.
    AnsweredByStaff,
    /// Nobody took the call.
    Missed,
    /// The telephony platform took the call.
    AnsweredByVonage,
    /// A status that a newer release wrote, kept in its own words so that this
    /// release passes it on unharmed.
    Unrecognized(Box<str>),
}

impl Status {
    /// Every status this release knows.
    pub const ALL: [Self; 4] = [
        Self::IncomingCall,
        Self::AnsweredByStaff,
        Self::Missed,
        Self::AnsweredByVonage,
    ];

    /// The reference's own word for it.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::IncomingCall => "incoming call",
            Self::AnsweredByStaff => "answered by staff",
            Self::Missed => "missed",
            Self::AnsweredByVonage => "answered by vonage",
            Self::Unrecognized(word) => word,
        }
    }

    /// The status with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|status| status.word() == word);
        known.unwrap_or_else(|| Self::Unrecognized(word.into()))
    }

    /// Whether the call is still going on. An unrecognized status is closed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::IncomingCall)
    }
}

/// Whether a call came in or went out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The call came in.
    Inbound,
    /// The call went out.
    Outbound,
    /// A direction that a newer release wrote, kept in its own words.
    Unrecognized(Box<str>),
}

impl Direction {
    /// Every direction this release knows.
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// The reference's own word for it.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Unrecognized(word) => word,
        }
    }

    /// The direction with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|one| one.word() == word);
        known.unwrap_or_else(|| Self::Unrecognized(word.into()))
    }
}

/// A length of time in whole seconds, 0 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(i32);

impl Seconds {
    /// `seconds`, unless it is negative.
    #[must_use]
    pub fn new(seconds: i32) -> Option<Self> {
        (seconds >= 0).then_some(Self(seconds))
    }

    /// The number of seconds.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

/// What clients write: the fields of a call that are neither its identity nor
/// the server's own.
///
/// As part of a [`Call`] or a [`Draft`](super::Draft), status and direction
/// are always there; a [`Patch`](super::Patch) holds them separately, as the
/// values of those fields that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// How long the call took.
    pub duration: Option<Seconds>,
    /// How the call stands or ended.
    pub status: Status,
    /// Whether it came in or went out.
    pub direction: Direction,
    /// The member of staff who answered it.
    pub staff_uid: Option<Identifier>,
    /// The client who made it.
    pub client_uid: Option<Identifier>,
    /// The number it was made from.
    pub from_number: Option<PhoneNumber>,
    /// The number it was made to.
    pub to_number: Option<PhoneNumber>,
    /// Link to the recording.
    pub recording_url: Option<Url>,
    /// Text summary.
    pub call_summary: Option<Summary>,
    /// Link to an application page.
    pub external_app_url: Option<Url>,
    /// The member of staff who handled it.
    pub handled_by_staff_uid: Option<Identifier>,
    /// When it was handled.
    pub handled_at: Option<Timestamp>,
}

/// One call, in one state.
///
/// While a change is being prepared, times may be [`Timestamp::AT_COMMIT`] and
/// the revision is 0; [`Call::commit`] puts in what the commit decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The call's identity.
    pub uid: Uuid,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was deleted, if it is.
    pub deleted_at: Option<Timestamp>,
    /// What clients write.
    pub attributes: Attributes,
    /// The change that produced this state.
    pub revision: Revision,
}

impl Call {
    /// Puts in the revision and the time that the commit decided.
    pub fn commit(&mut self, revision: Revision, committed_at: Timestamp) {
        let settle = |time: &mut Timestamp| {
            if *time == Timestamp::AT_COMMIT {
                *time = committed_at;
            }
        };
        settle(&mut self.created_at);
        settle(&mut self.updated_at);
        self.deleted_at.iter_mut().for_each(settle);
        self.attributes.handled_at.iter_mut().for_each(settle);
        self.revision = revision;
    }

    /// The fields in which this state differs from `before`.
    #[must_use]
    pub fn changed_fields(&self, before: &Self) -> FieldSet {
        Field::ALL
            .into_iter()
            .filter(|field| !self.same(before, *field))
            .collect()
    }

    fn same(&self, other: &Self, field: Field) -> bool {
        let (a, b) = (&self.attributes, &other.attributes);
        match field {
            Field::Uid => self.uid == other.uid,
            Field::Duration => a.duration == b.duration,
            Field::CreatedAt => self.created_at == other.created_at,
            Field::UpdatedAt => self.updated_at == other.updated_at,
            Field::Status => a.status == b.status,
            Field::Direction => a.direction == b.direction,
            Field::StaffUid => a.staff_uid == b.staff_uid,
            Field::ClientUid => a.client_uid == b.client_uid,
            Field::FromNumber => a.from_number == b.from_number,
            Field::ToNumber => a.to_number == b.to_number,
            Field::RecordingUrl => a.recording_url == b.recording_url,
            Field::CallSummary => a.call_summary == b.call_summary,
            Field::ExternalAppUrl => a.external_app_url == b.external_app_url,
            Field::HandledByStaffUid => a.handled_by_staff_uid == b.handled_by_staff_uid,
            Field::HandledAt => a.handled_at == b.handled_at,
            Field::DeletedAt => self.deleted_at == other.deleted_at,
            Field::Revision => self.revision == other.revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_references_own_and_unknown_words_survive() {
        let words: Vec<_> = Status::ALL.iter().map(|s| s.word().to_owned()).collect();
        assert_eq!(
            words,
            [
                "incoming call",
                "answered by staff",
                "missed",
                "answered by vonage"
            ]
        );
        for status in Status::ALL {
            assert_eq!(Status::from_word(status.word()), status);
        }
        for direction in Direction::ALL {
            assert_eq!(Direction::from_word(direction.word()), direction);
        }
        assert_eq!(Status::from_word("voicemail").word(), "voicemail");
        assert!(!Status::from_word("voicemail").is_open());
    }
}
