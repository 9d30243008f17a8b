//! Memory for bodies that are held whole: one account for clients and the user process
//! (data-plane.md §4, `[limits] held_bytes`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The account. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct HeldBytes {
    all: Arc<AtomicU64>,
    limit: u64,
}

impl HeldBytes {
    /// An account of which nothing is used.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            all: Arc::default(),
            limit,
        }
    }

    /// Room for so many bytes; `None` when all that is held would be over the limit.
    pub(crate) fn hold(&self, bytes: u64) -> Option<Held> {
        let before = self.all.fetch_add(bytes, Ordering::Relaxed);
        let held = Held {
            all: Arc::clone(&self.all),
            bytes,
        };
        (before.saturating_add(bytes) <= self.limit).then_some(held)
    }
}

/// Room that is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    all: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_over_the_limit_is_refused_and_room_given_back_is_there_again() {
        let account = HeldBytes::new(100);
        let other = account.clone();
        let first = account.hold(60).unwrap();
        assert!(other.hold(41).is_none());
        let second = account.hold(40).unwrap();
        assert!(other.hold(1).is_none());
        drop(first);
        assert!(account.hold(60).is_some());
        drop(second);
        assert!(account.hold(100).is_some());
    }
}
