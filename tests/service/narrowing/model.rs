//! What a caller must see: the log of all changes, as the one who sees everything saw it live,
//! and what is left of it when every state that a caller may not see is taken out.

use std::collections::{BTreeMap, HashSet};

use voicecall::proto::{
    VoiceCall, VoiceCallChange, VoiceCallChangeKind as Kind, VoiceCallEvent,
    VoiceCallEventType as Type, VoiceCallFilter,
};

use super::{callers::Narrowing, filters::matches};
use crate::support::micros;

/// What a caller looks at.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) narrowing: Narrowing,
    pub(super) filter: VoiceCallFilter,
}

impl View {
    /// Whether the call is in it.
    pub(super) fn shows(&self, call: &VoiceCall) -> bool {
        self.narrowing.covers(call) && matches(&self.filter, call)
    }

    /// What a change is to it.
    fn event(&self, change: &VoiceCallChange, with_previous: bool) -> Option<VoiceCallEvent> {
        let event = |r#type: Type, change| {
            Some(VoiceCallEvent {
                r#type: r#type.into(),
                change: Some(change),
            })
        };
        let place = VoiceCallChange {
            revision: change.revision,
            uid: change.uid.clone(),
            changed_at: change.changed_at,
            ..Default::default()
        };
        if change.kind() == Kind::Purged {
            let uids = &self.filter.uids;
            if !uids.is_empty() && !uids.contains(&change.uid) {
                return None;
            }
            let erased = VoiceCallChange {
                kind: Kind::Purged.into(),
                ..place
            };
            return match self.narrowing.is_narrowed() {
                true => event(Type::Purged, erased),
                false => event(Type::Purged, change.clone()),
            };
        }
        let covered = |state: &Option<VoiceCall>| {
            let state = state.as_ref();
            state.filter(|call| self.narrowing.covers(call)).cloned()
        };
        let is_shown = |state: &Option<VoiceCall>| {
            let state = state.as_ref();
            state.is_some_and(|call| matches(&self.filter, call))
        };
        let (before, after) = (covered(&change.previous), covered(&change.voice_call));
        let r#type = match (is_shown(&before), is_shown(&after), &after) {
            (false, false, _) => return None,
            (false, true, _) => Type::Entered,
            (true, true, _) => Type::Updated,
            // Nothing of what it has become is told.
            (true, false, None) => return event(Type::Exited, place),
            (true, false, Some(after)) if after.deleted_at.is_some() => Type::Deleted,
            (true, false, Some(_)) => Type::Exited,
        };
        let fields = change.changed_fields.clone();
        let change = VoiceCallChange {
            changed_fields: fields.filter(|_| before.is_some()),
            previous: before.filter(|_| with_previous),
            ..change.clone()
        };
        event(r#type, change)
    }
}

/// All changes, in order, from the first on.
pub(super) struct Log {
    changes: Vec<VoiceCallChange>,
    purged: HashSet<String>,
}

impl Log {
    /// The log as these events of a watch with `include_previous` and `show_deleted` have it,
    /// which was read before anything was purged.
    pub(super) fn new(events: Vec<VoiceCallEvent>) -> Self {
        let changes = events
            .into_iter()
            .map(|event| event.change.expect("always set"));
        let changes: Vec<_> = changes.collect();
        for (revision, change) in (1..).zip(&changes) {
            assert_eq!(change.revision, revision, "a gap in the log");
        }
        let purges = changes
            .iter()
            .filter(|change| change.kind() == Kind::Purged);
        let purged = purges.map(|change| change.uid.clone()).collect();
        Self { changes, purged }
    }

    pub(super) fn head(&self) -> i64 {
        self.changes.last().map_or(0, |change| change.revision)
    }

    /// Every state that any call ever had.
    pub(super) fn states(&self) -> Vec<VoiceCall> {
        let states = self.changes.iter().map(|change| change.voice_call.clone());
        states.flatten().collect()
    }

    /// The events after a revision as one who watched live got them.
    pub(super) fn live_events(
        &self,
        view: &View,
        after: i64,
        with_previous: bool,
    ) -> Vec<VoiceCallEvent> {
        let later = self.changes.iter().filter(|change| change.revision > after);
        later
            .filter_map(|change| view.event(change, with_previous))
            .collect()
    }

    /// The events as they are read from now on: without those of calls that were purged.
    pub(super) fn events(
        &self,
        view: &View,
        after: i64,
        with_previous: bool,
    ) -> Vec<VoiceCallEvent> {
        let mut events = self.live_events(view, after, with_previous);
        events.retain(|event| {
            let is_kept = |change: &VoiceCallChange| !self.purged.contains(&change.uid);
            event.r#type() == Type::Purged || event.change.as_ref().is_some_and(is_kept)
        });
        events
    }

    /// The calls of a view at a revision, by time of creation.
    pub(super) fn calls_at(&self, view: &View, revision: i64) -> Vec<VoiceCall> {
        let mut calls = BTreeMap::new();
        let changes = self.changes.iter();
        for change in changes.take_while(|change| change.revision <= revision) {
            match &change.voice_call {
                Some(call) => calls.insert(&change.uid, call),
                None => calls.remove(&change.uid),
            };
        }
        let shown = calls.into_values().filter(|call| view.shows(call));
        let mut shown: Vec<_> = shown.cloned().collect();
        shown.sort_by_key(|call| (micros(call.created_at), call.uid.clone()));
        shown
    }

    /// The calls of a view as they are now, by time of creation.
    pub(super) fn calls(&self, view: &View) -> Vec<VoiceCall> {
        self.calls_at(view, self.head())
    }

    /// No narrowed caller has written what it may not see, nor over it.
    pub(super) fn check_actors(&self, narrowing_of: impl Fn(&str) -> Narrowing) {
        for change in &self.changes {
            let narrowing = narrowing_of(&change.actor);
            if !narrowing.is_narrowed() {
                continue;
            }
            let states = [&change.previous, &change.voice_call];
            let is_covered = states
                .into_iter()
                .flatten()
                .all(|call| narrowing.covers(call));
            let is_allowed = match change.kind() {
                Kind::Created => change.previous.is_none(),
                Kind::Updated | Kind::Handled | Kind::Deleted | Kind::Undeleted => {
                    change.previous.is_some()
                }
                Kind::Imported | Kind::Purged | Kind::Unspecified => false,
            };
            assert!(is_covered && is_allowed, "{narrowing:?} wrote {change:?}");
        }
    }
}
