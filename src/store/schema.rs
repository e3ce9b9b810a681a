//! The tables, as diesel knows them. The migrations are the source.

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
    use diesel::sql_types::{BigInt, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
    use super::sql_types::{VoiceCallDirection, VoiceCallStatus};

    voice_call_changes (revision) {
        revision -> BigInt,
        stamp -> BigInt,
        changed_at -> Timestamptz,
        old_values -> Nullable<Jsonb>,
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
    }
}

diesel::table! {
    request_records (principal, request_id) {
        recorded_at -> Timestamptz,
        principal -> Text,
        request_id -> Uuid,
        fingerprint -> Uuid,
        uid -> Uuid,
        revision -> BigInt,
        change_count -> Integer,
    }
}
