//! The names of a call's fields, and sets of them.

/// A field of a call, in the order of the proto message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is documented as a field of Call")]
pub enum Field {
    Uid,
    Duration,
    CreatedAt,
    UpdatedAt,
    Status,
    Direction,
    StaffUid,
    ClientUid,
    FromNumber,
    ToNumber,
    RecordingUrl,
    CallSummary,
    ExternalAppUrl,
    HandledByStaffUid,
    HandledAt,
    DeletedAt,
    Revision,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 17] = [
        Self::Uid,
        Self::Duration,
        Self::CreatedAt,
        Self::UpdatedAt,
        Self::Status,
        Self::Direction,
        Self::StaffUid,
        Self::ClientUid,
        Self::FromNumber,
        Self::ToNumber,
        Self::RecordingUrl,
        Self::CallSummary,
        Self::ExternalAppUrl,
        Self::HandledByStaffUid,
        Self::HandledAt,
        Self::DeletedAt,
        Self::Revision,
    ];

    /// The fields that clients write, which an update may name.
    pub const WRITABLE: [Self; 12] = [
        Self::Duration,
        Self::Status,
        Self::Direction,
        Self::StaffUid,
        Self::ClientUid,
        Self::FromNumber,
        Self::ToNumber,
        Self::RecordingUrl,
        Self::CallSummary,
        Self::ExternalAppUrl,
        Self::HandledByStaffUid,
        Self::HandledAt,
    ];

    /// The field's name, the same in the API, in SQL and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uid => "uid",
            Self::Duration => "duration",
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::Status => "status",
            Self::Direction => "direction",
            Self::StaffUid => "staff_uid",
            Self::ClientUid => "client_uid",
            Self::FromNumber => "from_number",
            Self::ToNumber => "to_number",
            Self::RecordingUrl => "recording_url",
            Self::CallSummary => "call_summary",
            Self::ExternalAppUrl => "external_app_url",
            Self::HandledByStaffUid => "handled_by_staff_uid",
            Self::HandledAt => "handled_at",
            Self::DeletedAt => "deleted_at",
            Self::Revision => "revision",
        }
    }

    /// The field with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// Whether clients write it.
    #[must_use]
    pub fn is_writable(self) -> bool {
        Self::WRITABLE.contains(&self)
    }
}

/// A set of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldSet(u32);

impl FieldSet {
    /// The fields that are paired with `true`.
    #[must_use]
    pub fn where_true<const N: usize>(fields: [(Field, bool); N]) -> Self {
        let members = fields.into_iter().filter(|(_, is_member)| *is_member);
        members.map(|(field, _)| field).collect()
    }

    /// The fields that are in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds a field.
    pub fn insert(&mut self, field: Field) {
        self.0 |= 1 << field as u8;
    }

    /// Whether the field is in the set.
    #[must_use]
    pub const fn contains(self, field: Field) -> bool {
        self.0 & (1 << field as u8) != 0
    }

    /// Whether no field is.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The fields, in the order of the proto message.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL
            .into_iter()
            .filter(move |field| self.contains(*field))
    }
}

impl FromIterator<Field> for FieldSet {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> Self {
        let mut set = Self::default();
        fields.into_iter().for_each(|field| set.insert(field));
        set
    }
}
