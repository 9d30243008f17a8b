//! How much a connection costs against how much it asks for.
//!
//! Frames that carry nothing of a request or a response (SETTINGS, PING, `WINDOW_UPDATE`, PRIORITY, empty
//! DATA) are cheap to send and not free to read. A client may send as many bytes of them as eight times
//! the bytes of heads and bodies both ways, and 8 MiB more: downloads in small windows stay far below
//! that. Requests that are taken back before they were answered are counted for ten seconds each.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::duplex::Host;

/// Bytes read for each byte of heads and bodies, and bytes besides.
const BYTES_PER_PAYLOAD: u64 = 8;
const BYTES_BESIDES: u64 = 8 * 1024 * 1024;
/// How long requests that were taken back are counted together.
const RESETS_FOR: Duration = Duration::from_secs(10);

/// What is counted of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    read: Cell<u64>,
    payload: Cell<u64>,
    max_resets: u32,
    resets: Cell<u32>,
    resets_since: Cell<Option<Instant>>,
    /// Since when the client takes nothing of what was written.
    stalled: Cell<Option<Instant>>,
    /// What the client's socket had taken when that was looked at last; wraps around.
    sent: Cell<u64>,
}

impl Meter {
    pub(super) fn new(max_resets: u32) -> Self {
        Self {
            read: Cell::new(0),
            payload: Cell::new(0),
            max_resets,
            resets: Cell::new(0),
            resets_since: Cell::new(None),
            stalled: Cell::new(None),
            sent: Cell::new(0),
        }
    }

    /// Counts bytes of heads and bodies.
    pub(super) fn payload(&self, bytes: u64) {
        self.payload.set(self.payload.get().saturating_add(bytes));
    }

    /// Counts a request that the client took back before it was answered.
    pub(super) fn reset(&self) {
        let now = Instant::now();
        let is_recent = |since: Instant| now.saturating_duration_since(since) < RESETS_FOR;
        if !self.resets_since.get().is_some_and(is_recent) {
            self.resets_since.set(Some(now));
            self.resets.set(0);
        }
        self.resets.set(self.resets.get().saturating_add(1));
    }

    /// Whether the connection costs more than it is worth.
    pub(super) fn is_flood(&self) -> bool {
        let allowed = self.payload.get().saturating_mul(BYTES_PER_PAYLOAD);
        self.read.get() > allowed.saturating_add(BYTES_BESIDES)
            || self.resets.get() > self.max_resets
    }

    /// Since when the client takes nothing of what was written.
    pub(super) fn stalled(&self) -> Option<Instant> {
        self.stalled.get()
    }

    /// Counts bytes that were read.
    pub(super) fn read(&self, bytes: u64) {
        self.read.set(self.read.get().wrapping_add(bytes));
    }

    /// Takes note of how many bytes the client's socket has taken so far, and whether that was all.
    /// What TLS has taken says nothing of the client.
    pub(super) fn sent(&self, sent: u64, is_all: bool) {
        let has_moved = self.sent.replace(sent) != sent;
        if is_all {
            self.stalled.set(None);
        } else if has_moved || self.stalled.get().is_none() {
            self.stalled.set(Some(Instant::now()));
        }
    }
}

impl Host for Rc<Meter> {
    /// What a tunnel carries is payload as bodies are.
    fn moved(&self, bytes: usize) {
        self.payload(super::length(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t03_frames_without_payload_are_a_flood_at_some_point() {
        let meter = Meter::new(10);
        meter.read(BYTES_BESIDES);
        assert!(!meter.is_flood());
        meter.read(1);
        assert!(meter.is_flood());
        meter.payload(1);
        assert!(!meter.is_flood());
    }

    #[test]
    fn t03_requests_that_are_taken_back_are_counted_for_ten_seconds() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let meter = Meter::new(10);
            for _ in 0..5 {
                for _ in 0..10 {
                    meter.reset();
                }
                assert!(!meter.is_flood());
                tokio::time::advance(RESETS_FOR).await;
            }
            for _ in 0..11 {
                assert!(!meter.is_flood());
                meter.reset();
            }
            assert!(meter.is_flood());
        });
    }
}
