//! What time it is, as far as an enclave can know.
//!
//! Deciding code takes a time or a [`Clock`]; nothing else in this crate reads one. The host's clock
//! is a hint (architecture.md §3.6): [`Disciplined`] keeps the enclave's own clock between the
//! timestamp of its newest attestation document and a minute after it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// Takes note of an attestation document of this enclave's own NSM that was made this moment,
    /// with the timestamp `document_ms`. A clock that is not corrected ignores it.
    fn observe(&self, _document_ms: u64) {}

    /// How far it is from the system's, in milliseconds.
    fn offset_ms(&self) -> i64 {
        0
    }
}

/// The system's clock, as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Clock for System {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

/// A clock that is corrected by timestamps of attestation documents, and never runs backwards once
/// it was.
#[derive(Debug)]
pub struct Disciplined<C> {
    inner: C,
    /// Added to the inner clock, in milliseconds.
    offset_ms: AtomicI64,
    /// Latest time that was given after the first correction; 0 before it.
    latest_ms: AtomicU64,
}

impl<C: Clock> Disciplined<C> {
    /// A clock that is `inner` until [`Clock::observe`] is called.
    pub fn new(inner: C) -> Self {
        Self {
            inner,
            offset_ms: AtomicI64::new(0),
            latest_ms: AtomicU64::new(0),
        }
    }
}

impl<C: Clock> Clock for Disciplined<C> {
    fn now_ms(&self) -> u64 {
        let now = shifted(self.inner.now_ms(), self.offset_ms.load(Ordering::Relaxed));
        let latest = self.latest_ms.load(Ordering::Relaxed);
        if latest == 0 {
            return now;
        }
        if now > latest {
            self.latest_ms.fetch_max(now, Ordering::Relaxed);
            return now;
        }
        latest
    }

    fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::Relaxed)
    }

    /// Moves the clock into the span between `document_ms` and [`MAX_LEAD_MS`] after it, when it is
    /// outside.
    fn observe(&self, document_ms: u64) {
        let system = self.inner.now_ms();
        let shown = shifted(system, self.offset_ms.load(Ordering::Relaxed));
        let right = shown.clamp(document_ms, document_ms.saturating_add(MAX_LEAD_MS));
        self.offset_ms
            .store(difference(right, system), Ordering::Relaxed);
        self.latest_ms.fetch_max(right, Ordering::Relaxed);
    }
}

fn shifted(time_ms: u64, offset_ms: i64) -> u64 {
    time_ms.saturating_add_signed(offset_ms)
}

fn difference(left: u64, right: u64) -> i64 {
    let distance = i64::try_from(left.abs_diff(right)).unwrap_or(i64::MAX);
    if left >= right {
        distance
    } else {
        distance.saturating_neg()
    }
}

/// How far the clock may be ahead of a document that was just made, in milliseconds
/// (architecture.md §3.6: "± 60 s, never back").
pub const MAX_LEAD_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone)]
    struct Manual(Arc<AtomicU64>);

    impl Clock for Manual {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn at(start: u64) -> (Arc<AtomicU64>, Disciplined<Manual>) {
        let time = Arc::new(AtomicU64::new(start));
        (Arc::clone(&time), Disciplined::new(Manual(time)))
    }

    #[test]
    fn a_clock_that_is_behind_is_moved_to_the_document() {
        let (time, clock) = at(1_000);
        clock.observe(500_000);
        assert_eq!(clock.now_ms(), 500_000);
        time.store(1_700, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 500_700);
    }

    #[test]
    fn a_lead_of_up_to_a_minute_is_left_alone_and_more_is_cut() {
        let (_, clock) = at(60_000);
        clock.observe(1);
        assert_eq!(clock.now_ms(), 60_000);

        let (_, clock) = at(90_000_000);
        clock.observe(1_000);
        assert_eq!(clock.now_ms(), 61_000);
    }

    /// A host that sets the clock back would bring expired bundles to life.
    #[test]
    fn it_never_runs_backwards() {
        let (time, clock) = at(100_000);
        clock.observe(100_000);
        time.store(50_000, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 100_000);
        time.store(100_500, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 100_500);
    }
}
