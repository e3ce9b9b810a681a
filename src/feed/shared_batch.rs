//! The next events of a watcher, collected and encoded once for all watchers at the same
//! position with the same view.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Entry, encoded::Encoded};
use crate::{
    domain::{Timestamp, View, view::Event},
    store::Position,
};

/// Events in view, in order.
#[derive(Debug)]
pub struct SharedBatch {
    /// The events; at least one.
    pub events: Vec<(Event, Arc<Entry>)>,
    /// With these events, everything in view up to here has been delivered.
    pub position: Position,
    encoded: Encoded,
}

impl SharedBatch {
    pub(super) fn new(events: Vec<(Event, Arc<Entry>)>, position: Position) -> Self {
        Self {
            events,
            position,
            encoded: Encoded::default(),
        }
    }

    /// The encoded form of the events, with or without the states before. It is made once, by
    /// the first watcher that needs it.
    pub fn encoded(&self, with_previous: bool, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.encoded.get(with_previous, || encode(self)).clone()
    }
}

/// The batch that was collected last.
///
/// Invariant: it never holds the content of a call whose purge the feed has seen.
#[derive(Debug, Default)]
pub(super) struct LatestBatch(Mutex<LatestState>);

#[derive(Debug, Default)]
struct LatestState {
    /// Incremented whenever batches that were collected before become invalid.
    generation: u64,
    shared: Option<KeyedBatch>,
}

/// A batch, and the view and position that it is for.
#[derive(Debug, Clone)]
pub(super) struct KeyedBatch {
    pub(super) view: Arc<View>,
    /// The position that the batch follows.
    pub(super) from: Position,
    pub(super) batch: Arc<SharedBatch>,
    /// When the entry at the batch's position was committed.
    pub(super) time: Timestamp,
}

impl LatestBatch {
    /// The batch for this view behind this position, or the generation to pass to
    /// [`LatestBatch::put`] with a batch that is collected from now on.
    pub(super) fn get(&self, view: &View, from: Position) -> Result<KeyedBatch, u64> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.shared {
            Some(shared) if shared.from == from && *shared.view == *view => Ok(shared.clone()),
            _ => Err(state.generation),
        }
    }

    /// Keeps a batch, unless it has become invalid since `generation`.
    pub(super) fn put(&self, generation: u64, shared: KeyedBatch) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation == generation {
            state.shared = Some(shared);
        }
    }

    /// How often earlier batches have become invalid.
    pub(super) fn generation(&self) -> u64 {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.generation
    }

    /// Makes all earlier batches invalid, because they may hold content that is to be erased.
    pub(super) fn invalidate(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.generation += 1;
        state.shared = None;
    }
}
