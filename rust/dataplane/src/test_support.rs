//! What the tests of several modules stand on: a clock that follows tokio's paused time, and a
//! simulated NSM.

use std::sync::Arc;

use cloister_attestation::UnixMillis;
use cloister_nsm::NsmProvider;
use cloister_nsm_sim::{DevelopmentRoot, LocalNsm, Simulator};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::nsm_thread::NsmThread;

/// Wall-clock time that passes as tokio's does.
#[derive(Clone, Debug)]
pub(crate) struct Paused {
    start: Instant,
}

impl Paused {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for Paused {
    fn now_ms(&self) -> u64 {
        let passed_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap();
        START_MS.saturating_add(passed_ms)
    }
}

/// A simulated NSM with this PCR0, asked on the caller's thread.
pub(crate) fn nsm(pcr0: [u8; 48], clock: &Paused) -> NsmThread {
    NsmThread::on_caller(provider(pcr0, clock))
}

/// A simulated NSM with this PCR0.
pub(crate) fn provider(pcr0: [u8; 48], clock: &Paused) -> Arc<dyn NsmProvider> {
    let now = UnixMillis(clock.now_ms());
    let root = DevelopmentRoot::generate(now).unwrap();
    let simulator = Simulator::new(&root, [(0, pcr0)], "i-test", now).unwrap();
    let clock = clock.clone();
    Arc::new(LocalNsm::new(simulator, move || UnixMillis(clock.now_ms())))
}

/// 2026-01-01T00:00:00Z.
pub(crate) const START_MS: u64 = 1_767_225_600_000;
