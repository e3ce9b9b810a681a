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
pub(in crate::api) struct Budget(Arc<Left>);

#[derive(Debug)]
struct Left(AtomicUsize);

/// What one request or response has of the budget; given back when it is dropped.
#[derive(Debug)]
pub(in crate::api) struct Claim {
    budget: Budget,
    /// Of its connection, which has a budget of its own.
    share: Option<Budget>,
    /// What it may hold without asking.
    free: usize,
    /// What it holds, the free bytes included.
    held: usize,
    /// What was taken from the budget.
    taken: usize,
}

impl Budget {
    pub(in crate::api) fn new(bytes: usize) -> Self {
        Self(Arc::new(Left(AtomicUsize::new(bytes))))
    }

    /// For one with a place, whose bytes count against its connection's share too.
    pub(super) fn claim(&self, share: Option<&Self>) -> Claim {
        self.claim_beyond(FREE_BYTES, share)
    }

    /// For one without a place, of which there may be any number.
    pub(in crate::api) fn claim_of_all(&self) -> Claim {
        self.claim_beyond(0, None)
    }

    fn take(&self, bytes: usize) -> bool {
        let order = Ordering::Relaxed;
        let take = |left: usize| left.checked_sub(bytes);
        self.0.0.fetch_update(order, order, take).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn claim_beyond(&self, free: usize, share: Option<&Self>) -> Claim {
        Claim {
            budget: self.clone(),
            share: share.cloned(),
            free,
            held: 0,
            taken: 0,
        }
    }
}

impl Claim {
    /// Takes more bytes; false if not enough are left.
    pub(in crate::api) fn add(&mut self, bytes: usize) -> bool {
        let held = self.held.saturating_add(bytes);
        let wanted = held.saturating_sub(self.free) - self.taken;
        if wanted > 0 {
            let has_share = self.share.as_ref().is_none_or(|share| share.take(wanted));
            if !has_share {
                return false;
            }
            if !self.budget.take(wanted) {
                self.give_back(wanted, false);
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
            self.give_back(self.taken, true);
            self.taken = 0;
        }
    }

    /// To the connection's share, and to the budget if they were taken from it.
    fn give_back(&self, bytes: usize, is_taken: bool) {
        if let Some(share) = &self.share {
            share.give_back(bytes);
        }
        if is_taken {
            self.budget.give_back(bytes);
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
    fn one_connection_leaves_something_for_others() {
        let (budget, one) = (Budget::new(2 * FREE_BYTES), Budget::new(FREE_BYTES));
        let mut first = budget.claim(Some(&one));
        assert!(first.add(2 * FREE_BYTES));
        assert!(!budget.claim(Some(&one)).add(FREE_BYTES + 1));
        let mut other = budget.claim(None);
        assert!(other.add(2 * FREE_BYTES));
        // What the budget refuses is not kept from the share.
        drop(first);
        let mut all = budget.claim(None);
        assert!(all.add(2 * FREE_BYTES));
        assert!(!budget.claim(Some(&one)).add(FREE_BYTES + 1));
        drop(all);
        assert!(budget.claim(Some(&one)).add(2 * FREE_BYTES));
    }

    #[test]
    fn what_is_beyond_the_budget_is_refused_and_what_is_dropped_comes_back() {
        let budget = Budget::new(FREE_BYTES);
        let mut small = budget.claim(None);
        assert!(small.add(FREE_BYTES));
        let mut large = budget.claim(None);
        assert!(large.add(FREE_BYTES));
        assert!(large.add(FREE_BYTES));
        let mut late = budget.claim(None);
        assert!(late.add(FREE_BYTES));
        assert!(!late.add(1));
        assert!(!budget.claim_of_all().add(1));
        drop(large);
        assert!(late.add(FREE_BYTES));
        assert!(!late.add(1));
    }
}
