//! A budget of bytes that many share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What one with a place may hold without asking: most requests and responses are smaller, and
/// cost no more than a comparison.
const FREE_BYTES: usize = 64 * 1024;

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Left>);

#[derive(Debug)]
struct Left(AtomicUsize);

/// What one request or response has of the budget; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    budget: Budget,
    /// What it may hold without asking.
    free: usize,
    /// What it holds, the free bytes included.
    held: usize,
    /// What was taken from the budget.
    taken: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Left(AtomicUsize::new(bytes))))
    }

    /// For one with a place.
    pub(super) fn claim(&self) -> Claim {
        self.claim_beyond(FREE_BYTES)
    }

    /// For one without a place, of which there may be any number.
    pub(super) fn claim_of_all(&self) -> Claim {
        self.claim_beyond(0)
    }

    fn claim_beyond(&self, free: usize) -> Claim {
        Claim {
            budget: self.clone(),
            free,
            held: 0,
            taken: 0,
        }
    }
}

impl Claim {
    /// Takes more bytes; false if not enough are left.
    pub(super) fn add(&mut self, bytes: usize) -> bool {
        let held = self.held.saturating_add(bytes);
        let wanted = held.saturating_sub(self.free) - self.taken;
        if wanted > 0 {
            let left = &self.budget.0.0;
            let take = |left: usize| left.checked_sub(wanted);
            let order = Ordering::Relaxed;
            if left.fetch_update(order, order, take).is_err() {
                return false;
            }
            self.taken += wanted;
        }
        self.held = held;
        true
    }

    /// Takes what is missing to these bytes; false if not enough are left.
    pub(super) fn raise_to(&mut self, bytes: usize) -> bool {
        self.add(bytes.saturating_sub(self.held))
    }

    /// Gives everything back.
    pub(super) fn clear(&mut self) {
        self.held = 0;
        if self.taken > 0 {
            self.budget.0.0.fetch_add(self.taken, Ordering::Relaxed);
            self.taken = 0;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_budget_is_refused_and_what_is_dropped_comes_back() {
        let budget = Budget::new(FREE_BYTES);
        let mut small = budget.claim();
        assert!(small.add(FREE_BYTES));
        let mut large = budget.claim();
        assert!(large.add(FREE_BYTES));
        assert!(large.add(FREE_BYTES));
        let mut late = budget.claim();
        assert!(late.add(FREE_BYTES));
        assert!(!late.add(1));
        assert!(!budget.claim_of_all().add(1));
        drop(large);
        assert!(late.add(FREE_BYTES));
        assert!(!late.add(1));
    }
}
