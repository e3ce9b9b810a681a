//! Changes and events, to the wire.

use bytes::Bytes;
use prost::Message;

use super::calls;
use crate::{
    domain::{
        Change, ChangeKind, Field,
        view::{Disclosure, EventType},
    },
    proto,
};

/// The encoded message of what may be told of a change.
pub(crate) fn encode_change(change: &Change, disclosure: Disclosure, with_previous: bool) -> Bytes {
    let change = self::change(change, disclosure, with_previous);
    change.encode_to_vec().into()
}

pub(crate) fn event_type(event: EventType) -> proto::VoiceCallEventType {
    match event {
        EventType::Entered => proto::VoiceCallEventType::Entered,
        EventType::Updated => proto::VoiceCallEventType::Updated,
        EventType::Exited => proto::VoiceCallEventType::Exited,
        EventType::Deleted => proto::VoiceCallEventType::Deleted,
        EventType::Purged => proto::VoiceCallEventType::Purged,
    }
}

/// What may be told of a change.
pub(crate) fn change(
    change: &Change,
    disclosure: Disclosure,
    with_previous: bool,
) -> proto::VoiceCallChange {
    let whole = whole_change(change, with_previous);
    match disclosure {
        Disclosure::Whole => whole,
        Disclosure::After => proto::VoiceCallChange {
            previous: None,
            changed_fields: None,
            ..whole
        },
        Disclosure::CallAndTime => proto::VoiceCallChange {
            revision: whole.revision,
            uid: whole.uid,
            changed_at: whole.changed_at,
            // That it is one says the event too.
            kind: match change.kind {
                Some(ChangeKind::Purged) => whole.kind,
                _ => proto::VoiceCallChangeKind::Unspecified.into(),
            },
            ..Default::default()
        },
    }
}

fn whole_change(change: &Change, with_previous: bool) -> proto::VoiceCallChange {
    let call = |call: &std::sync::Arc<crate::domain::Call>| calls::call((**call).clone());
    let changed_fields = match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            let fields = after.changed_fields(before);
            let paths = fields
                .iter()
                .filter(|field| !matches!(field, Field::UpdatedAt | Field::Revision))
                .map(|field| field.name().to_owned());
            Some(prost_types::FieldMask {
                paths: paths.collect(),
            })
        }
        _ => None,
    };
    let previous = change.before.as_ref().filter(|_| with_previous);
    proto::VoiceCallChange {
        revision: change.revision,
        uid: change.uid.to_string(),
        changed_at: Some(calls::timestamp(change.changed_at)),
        kind: kind(change.kind).into(),
        voice_call: change.after.as_ref().map(call),
        previous: previous.map(call),
        changed_fields,
        actor: change.actor.as_deref().unwrap_or_default().to_owned(),
        request_id: change
            .request_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        transaction_end: change.transaction_end,
    }
}

fn kind(kind: Option<ChangeKind>) -> proto::VoiceCallChangeKind {
    match kind {
        None => proto::VoiceCallChangeKind::Unspecified,
        Some(ChangeKind::Created) => proto::VoiceCallChangeKind::Created,
        Some(ChangeKind::Updated) => proto::VoiceCallChangeKind::Updated,
        Some(ChangeKind::Handled) => proto::VoiceCallChangeKind::Handled,
        Some(ChangeKind::Deleted) => proto::VoiceCallChangeKind::Deleted,
        Some(ChangeKind::Undeleted) => proto::VoiceCallChangeKind::Undeleted,
        Some(ChangeKind::Purged) => proto::VoiceCallChangeKind::Purged,
        Some(ChangeKind::Imported) => proto::VoiceCallChangeKind::Imported,
    }
}
