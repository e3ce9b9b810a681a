//! What a watcher gets next, put together and encoded once for all who are at the same
//! place and want the same.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Entry, encoded::Encoded};
use crate::{
    domain::{Filter, Timestamp, view::EventType},
    store::Position,
};

/// Events in view, in order.
#[derive(Debug)]
pub struct SharedBatch {
    /// The events; at least one.
    pub events: Vec<(EventType, Arc<Entry>)>,
    /// With them everything in view up to here has been delivered.
    pub position: Position,
    encoded: Encoded,
}

impl SharedBatch {
    pub(super) fn new(events: Vec<(EventType, Arc<Entry>)>, position: Position) -> Self {
        Self {
            events,
            position,
            encoded: Encoded::default(),
        }
    }

    /// The events' encoded form, with the states before or without, which the first who
    /// wants it makes for all.
    pub fn encoded(&self, with_previous: bool, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.encoded.get(with_previous, || encode(self)).clone()
    }
}

/// The batch that was put together last.
#[derive(Debug, Default)]
pub(super) struct LatestBatch(Mutex<LatestState>);

#[derive(Debug, Default)]
struct LatestState {
    /// Counts what made batches void that were put together before.
    voided: u64,
    shared: Option<KeyedBatch>,
}

/// A batch, and for whom it is right.
#[derive(Debug, Clone)]
pub(super) struct KeyedBatch {
    pub(super) filter: Arc<Filter>,
    /// Behind this place.
    pub(super) from: Position,
    pub(super) batch: Arc<SharedBatch>,
    /// When the entry at the batch's position was committed.
    pub(super) time: Timestamp,
}

impl LatestBatch {
    /// The batch for this filter behind this place; else what [`LatestBatch::put`] is to
    /// be told about one that is put together from now on.
    pub(super) fn get(&self, filter: &Filter, from: Position) -> Result<KeyedBatch, u64> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.shared {
            Some(shared) if shared.from == from && *shared.filter == *filter => Ok(shared.clone()),
            _ => Err(state.voided),
        }
    }

    /// Keeps a batch, unless it is void already.
    pub(super) fn put(&self, voided: u64, shared: KeyedBatch) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.voided == voided {
            state.shared = Some(shared);
        }
    }

    /// How often what was put together before became void.
    pub(super) fn voided(&self) -> u64 {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.voided
    }

    /// What was put together until now is void: it says what is to be forgotten.
    pub(super) fn void(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.voided += 1;
        state.shared = None;
    }
}
