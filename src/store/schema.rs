//! The tables, as diesel knows them. The migrations are the source, and a test compares.
//!
//! `idempotency_records` is not among them: it has no primary key, which diesel demands.

/// SQL types of our own.
pub(super) mod sql_types {
    /// `voice_call_status`, which travels as its word.
    #[derive(diesel::sql_types::SqlType)]
    #[diesel(postgres_type(name = "voice_call_status"))]
    pub struct VoiceCallStatus;

    /// `voice_call_direction`, which travels as its word.
    #[derive(diesel::sql_types::SqlType)]
    #[diesel(postgres_type(name = "voice_call_direction"))]
    pub struct VoiceCallDirection;

    /// `voice_call_change_kind`, which travels as its word.
    #[derive(diesel::sql_types::SqlType)]
    #[diesel(postgres_type(name = "voice_call_change_kind"))]
    pub struct VoiceCallChangeKind;
}

diesel::table! {
    use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid};
    use super::sql_types::{VoiceCallDirection, VoiceCallStatus};

    voice_calls (uid) {
        uid -> Uuid,
        duration -> Nullable<Integer>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        status -> VoiceCallStatus,
        direction -> VoiceCallDirection,
        staff_uid -> Nullable<Text>,
        client_uid -> Nullable<Text>,
        from_number -> Nullable<Text>,
        to_number -> Nullable<Text>,
        recording_url -> Nullable<Text>,
        call_summary -> Nullable<Text>,
        external_app_url -> Nullable<Text>,
        handled_by_staff_uid -> Nullable<Text>,
        handled_at -> Nullable<Timestamptz>,
        deleted_at -> Nullable<Timestamptz>,
        revision -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
    use super::sql_types::{VoiceCallChangeKind, VoiceCallDirection, VoiceCallStatus};

    voice_call_changes (revision) {
        revision -> BigInt,
        stamp -> BigInt,
        changed_at -> Timestamptz,
        kind -> VoiceCallChangeKind,
        actor -> Nullable<Text>,
        request_id -> Nullable<Uuid>,
        transaction_end -> Bool,
        old_values -> Nullable<Jsonb>,
        uid -> Uuid,
        duration -> Nullable<Integer>,
        created_at -> Nullable<Timestamptz>,
        updated_at -> Nullable<Timestamptz>,
        status -> Nullable<VoiceCallStatus>,
        direction -> Nullable<VoiceCallDirection>,
        staff_uid -> Nullable<Text>,
        client_uid -> Nullable<Text>,
        from_number -> Nullable<Text>,
        to_number -> Nullable<Text>,
        recording_url -> Nullable<Text>,
        call_summary -> Nullable<Text>,
        external_app_url -> Nullable<Text>,
        handled_by_staff_uid -> Nullable<Text>,
        handled_at -> Nullable<Timestamptz>,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    purged_calls (uid) {
        uid -> Uuid,
        revision -> BigInt,
        erased_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    voice_call_batches (last_revision) {
        last_revision -> BigInt,
        stamp -> BigInt,
        committed_at -> Timestamptz,
        confirmed_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    feed (only_row) {
        only_row -> Bool,
        feed_id -> Uuid,
        oldest_revision -> BigInt,
    }
}
