//! The call itself, as `voice_call_object` has it.

use super::{
    Field, FieldSet, Identifier, PendingTime, PhoneNumber, Revision, Summary, Timestamp, Url, Uuid,
};

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

    /// `seconds`, or 0 if it is negative.
    #[must_use]
    pub(crate) fn clamped(seconds: i32) -> Self {
        Self(seconds.max(0))
    }

    /// The number of seconds.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

/// What clients write: the fields of a call that are neither its identity nor
/// the server's own. Of a change that is not committed yet, `T` is
/// [`PendingTime`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes<T = Timestamp> {
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
    pub handled_at: Option<T>,
}

impl<T> Attributes<T> {
    /// The same with this time of handling.
    #[must_use]
    pub fn with_handled_at<U>(self, handled_at: Option<U>) -> Attributes<U> {
        Attributes {
            duration: self.duration,
            status: self.status,
            direction: self.direction,
            staff_uid: self.staff_uid,
            client_uid: self.client_uid,
            from_number: self.from_number,
            to_number: self.to_number,
            recording_url: self.recording_url,
            call_summary: self.call_summary,
            external_app_url: self.external_app_url,
            handled_by_staff_uid: self.handled_by_staff_uid,
            handled_at,
        }
    }
}

impl<T: Copy + Into<PendingTime>> Attributes<T> {
    /// The fields in which these differ from `before`.
    pub(super) fn changed_fields(&self, before: &Attributes) -> FieldSet {
        // Taken apart, so that a new field is not forgotten here.
        let Self {
            duration,
            status,
            direction,
            staff_uid,
            client_uid,
            from_number,
            to_number,
            recording_url,
            call_summary,
            external_app_url,
            handled_by_staff_uid,
            handled_at,
        } = self;
        let handled_at: Option<PendingTime> = handled_at.map(Into::into);
        FieldSet::where_true([
            (Field::Duration, *duration != before.duration),
            (Field::Status, *status != before.status),
            (Field::Direction, *direction != before.direction),
            (Field::StaffUid, *staff_uid != before.staff_uid),
            (Field::ClientUid, *client_uid != before.client_uid),
            (Field::FromNumber, *from_number != before.from_number),
            (Field::ToNumber, *to_number != before.to_number),
            (Field::RecordingUrl, *recording_url != before.recording_url),
            (Field::CallSummary, *call_summary != before.call_summary),
            (
                Field::ExternalAppUrl,
                *external_app_url != before.external_app_url,
            ),
            (
                Field::HandledByStaffUid,
                *handled_by_staff_uid != before.handled_by_staff_uid,
            ),
            (
                Field::HandledAt,
                handled_at != before.handled_at.map(Into::into),
            ),
        ])
    }
}

/// One call, in one committed state.
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
    /// The approximate size in memory, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let a = &self.attributes;
        let names = [&a.staff_uid, &a.client_uid, &a.handled_by_staff_uid];
        let numbers = [&a.from_number, &a.to_number];
        let urls = [&a.recording_url, &a.external_app_url];
        let names = names.into_iter().flatten().map(Identifier::as_str);
        let numbers = numbers.into_iter().flatten().map(PhoneNumber::as_str);
        let urls = urls.into_iter().flatten().map(Url::as_str);
        let summary = a.call_summary.iter().map(Summary::as_str);
        let texts = names.chain(numbers).chain(urls).chain(summary);
        size_of::<Self>() + texts.map(str::len).sum::<usize>()
    }

    /// The fields in which this state differs from `before`.
    #[must_use]
    pub fn changed_fields(&self, before: &Self) -> FieldSet {
        let own = FieldSet::where_true([
            (Field::Uid, self.uid != before.uid),
            (Field::CreatedAt, self.created_at != before.created_at),
            (Field::UpdatedAt, self.updated_at != before.updated_at),
            (Field::DeletedAt, self.deleted_at != before.deleted_at),
            (Field::Revision, self.revision != before.revision),
        ]);
        own.union(self.attributes.changed_fields(&before.attributes))
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
