//! Counters of the traffic: written by every worker, read by health and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use cloister_transport::Meter;

use crate::server::traffic::TrafficStats;

/// Numbers since the start. Relaxed everywhere: they are shown, nothing is decided by them but how
/// many connections are open.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) active_connections: AtomicU64,
    pub(super) failed_handshakes: AtomicU64,
    pub(super) shed: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) active_requests: AtomicU64,
    pub(super) websockets: AtomicU64,
    pub(super) active_websockets: AtomicU64,
    pub(super) sessions: AtomicU64,
    pub(super) active_sessions: AtomicU64,
    pub(super) refused_headers: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) fields_opened: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// Bytes of connections whose TLS does not end here.
    pub(super) passed: Meter,
}

impl Counters {
    pub(super) fn active_connections(&self) -> u64 {
        self.active_connections.load(Ordering::Relaxed)
    }

    pub(super) fn snapshot(&self) -> TrafficStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TrafficStats {
            connections: read(&self.connections),
            active_connections: read(&self.active_connections),
            failed_handshakes: read(&self.failed_handshakes),
            shed: read(&self.shed),
            requests: read(&self.requests),
            active_requests: read(&self.active_requests),
            websockets: read(&self.websockets),
            active_websockets: read(&self.active_websockets),
            sessions: read(&self.sessions),
            active_sessions: read(&self.active_sessions),
            refused_headers: read(&self.refused_headers),
            refused: read(&self.refused),
            fields_opened: read(&self.fields_opened),
            bytes_in: read(&self.bytes_in).wrapping_add(read(&self.passed.forward)),
            bytes_out: read(&self.bytes_out).wrapping_add(read(&self.passed.backward)),
        }
    }
}

/// Adds `amount`.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// One more while it lives.
#[derive(Debug)]
pub(super) struct Gauge<'c>(&'c AtomicU64);

impl<'c> Gauge<'c> {
    pub(super) fn enter(counter: &'c AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
