//! Counters of the traffic: written by one thread each, added up when somebody asks.
//!
//! Nothing is shared on the request path: every worker, and the acceptor, has counters of its own, in
//! cache lines that no other thread writes. So an addition is a load and a store, no locked
//! instruction.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloister_transport::Meter;

use super::refusal::Refusal;
use crate::server::traffic::{
    Handshake, HandshakeFailure, LATENCY_MICROS, Reason, StatusGroup, TrafficStats, UpstreamError,
    UpstreamUse,
};

/// Numbers since the start, of one thread. They are shown; nothing is decided by them. Aligned to two
/// cache lines, because processors fetch those in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) waiting: AtomicU64,
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
    pub(super) key_hits: AtomicU64,
    pub(super) keys_derived: AtomicU64,
    pub(super) keys_kept: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// Bytes of connections whose TLS does not end here.
    pub(super) passed: Meter,
    latency_micros: AtomicU64,
    latency: [AtomicU64; LATENCY_MICROS.len() + 1],
    responses: [AtomicU64; StatusGroup::NAMES.len()],
    refusals: [AtomicU64; Reason::NAMES.len()],
    handshakes: [AtomicU64; Handshake::NAMES.len()],
    handshake_failures: [AtomicU64; HandshakeFailure::NAMES.len()],
    upstream_errors: [AtomicU64; UpstreamError::NAMES.len()],
    upstream_uses: [AtomicU64; UpstreamUse::NAMES.len()],
}

impl Counters {
    /// A request was answered, or ended without an answer (status 0), so long after its head.
    pub(super) fn answered(&self, status: u16, elapsed: Duration) {
        add_one(&self.responses, StatusGroup::of(status).number());
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_MICROS.iter().take_while(|end| micros > **end);
        add_one(&self.latency, bucket.count());
        add(&self.latency_micros, micros);
    }

    /// A request is answered with an error of the data plane.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        add(&self.refused, 1);
        add_one(&self.refusals, refusal.reason().number());
        if let Some(error) = refusal.upstream_error() {
            self.upstream_error(error);
        }
    }

    pub(super) fn handshake(&self, kind: Handshake) {
        add_one(&self.handshakes, kind.number());
    }

    pub(super) fn handshake_failed(&self, failure: HandshakeFailure) {
        add(&self.failed_handshakes, 1);
        add_one(&self.handshake_failures, failure.number());
    }

    pub(super) fn upstream_error(&self, error: UpstreamError) {
        add_one(&self.upstream_errors, error.number());
    }

    pub(super) fn upstream(&self, usage: UpstreamUse) {
        add_one(&self.upstream_uses, usage.number());
    }

    /// Adds these to what others have counted.
    pub(super) fn add_to(&self, stats: &mut TrafficStats) {
        for (sum, counter) in [
            (&mut stats.connections, &self.connections),
            (&mut stats.waiting, &self.waiting),
            (&mut stats.failed_handshakes, &self.failed_handshakes),
            (&mut stats.shed, &self.shed),
            (&mut stats.requests, &self.requests),
            (&mut stats.active_requests, &self.active_requests),
            (&mut stats.websockets, &self.websockets),
            (&mut stats.active_websockets, &self.active_websockets),
            (&mut stats.sessions, &self.sessions),
            (&mut stats.active_sessions, &self.active_sessions),
            (&mut stats.refused_headers, &self.refused_headers),
            (&mut stats.refused, &self.refused),
            (&mut stats.fields_opened, &self.fields_opened),
            (&mut stats.key_hits, &self.key_hits),
            (&mut stats.keys_derived, &self.keys_derived),
            (&mut stats.keys_kept, &self.keys_kept),
            (&mut stats.bytes_in, &self.bytes_in),
            (&mut stats.bytes_out, &self.bytes_out),
            (&mut stats.latency_micros, &self.latency_micros),
        ] {
            add_up(sum, counter);
        }
        add_up(&mut stats.bytes_in, &self.passed.forward);
        add_up(&mut stats.bytes_out, &self.passed.backward);
        let lists: [(&mut [u64], &[AtomicU64]); 7] = [
            (&mut stats.latency, &self.latency),
            (&mut stats.responses, &self.responses),
            (&mut stats.refusals, &self.refusals),
            (&mut stats.handshakes, &self.handshakes),
            (&mut stats.handshake_failures, &self.handshake_failures),
            (&mut stats.upstream_errors, &self.upstream_errors),
            (&mut stats.upstream_uses, &self.upstream_uses),
        ];
        for (sums, counters) in lists {
            for (sum, counter) in sums.iter_mut().zip(counters) {
                add_up(sum, counter);
            }
        }
    }
}

fn add_up(sum: &mut u64, counter: &AtomicU64) {
    *sum = sum.saturating_add(counter.load(Ordering::Relaxed));
}

/// Adds `amount`. The counter is of this thread: no other writes it.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(amount);
    counter.store(sum, Ordering::Relaxed);
}

fn add_one(counters: &[AtomicU64], at: usize) {
    if let Some(counter) = counters.get(at) {
        add(counter, 1);
    }
}

/// One more while it lives.
#[derive(Debug)]
pub(super) struct Gauge<'c>(&'c AtomicU64);

impl<'c> Gauge<'c> {
    pub(super) fn enter(counter: &'c AtomicU64) -> Self {
        add(counter, 1);
        Self(counter)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        add(self.0, u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_in_the_first_bucket_that_has_room_for_it() {
        let counters = Counters::default();
        for micros in [0, 100, 101, 30_000_000, 30_000_001] {
            counters.answered(200, Duration::from_micros(micros));
        }
        let mut stats = TrafficStats::default();
        counters.add_to(&mut stats);
        assert_eq!((stats.latency[0], stats.latency[1]), (2, 1));
        assert_eq!((stats.latency[16], stats.latency[17]), (1, 1));
        assert_eq!(stats.latency_micros, 60_000_202);
        assert_eq!(stats.responses[StatusGroup::Good.number()], 5);
    }

    #[test]
    fn counters_of_several_threads_are_added_up() {
        let (one, two) = (Counters::default(), Counters::default());
        add(&one.requests, 2);
        add(&two.requests, 3);
        one.refuse(&Refusal::new(401, "no"));
        two.refuse(&Refusal::new(504, "slow"));
        let gauge = Gauge::enter(&two.active_requests);
        let mut stats = TrafficStats::default();
        one.add_to(&mut stats);
        two.add_to(&mut stats);
        assert_eq!(
            (stats.requests, stats.refused, stats.active_requests),
            (5, 2, 1)
        );
        assert_eq!(stats.refusals[Reason::Unauthorized.number()], 1);
        assert_eq!(stats.upstream_errors[UpstreamError::Timeout.number()], 1);
        drop(gauge);
        assert_eq!(two.active_requests.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn two_threads_never_write_one_line() {
        assert_eq!(align_of::<Counters>(), 128);
        assert_eq!(size_of::<Counters>() % 128, 0);
    }
}
