//! How a list is ordered, and where a page of it begins.

use super::{Call, Timestamp, Uuid};

/// The time a list is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderField {
    /// When the calls were created.
    CreatedAt,
    /// When the calls were last updated.
    UpdatedAt,
}

/// The order of a list: by a time, then by uid, both in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Order {
    /// The time.
    pub field: OrderField,
    /// Latest first.
    pub descending: bool,
}

impl Order {
    /// Latest created first.
    pub const DEFAULT: Self = Self {
        field: OrderField::CreatedAt,
        descending: true,
    };

    /// Where the call stands in this order.
    #[must_use]
    pub fn key(self, call: &Call) -> PageKey {
        let time = match self.field {
            OrderField::CreatedAt => call.created_at,
            OrderField::UpdatedAt => call.updated_at,
        };
        PageKey {
            time,
            uid: call.uid,
        }
    }
}

/// A place in a list: that of the last call of the page before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageKey {
    /// The call's time, in the order's sense.
    pub time: Timestamp,
    /// The call.
    pub uid: Uuid,
}
