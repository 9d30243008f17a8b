//! The simulator in this process, as a provider: for `cloister dev` and for tests.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use cloister_attestation::UnixMillis;
use cloister_nsm::{Exchange, NsmError};

use crate::simulator::Simulator;

/// A [`Simulator`] behind a lock, with a clock. It answers the same bytes as a device would.
pub struct LocalNsm {
    simulator: Mutex<Simulator>,
    clock: Box<dyn Fn() -> UnixMillis + Send + Sync>,
}

impl LocalNsm {
    /// `simulator`, which takes its time from `clock`.
    pub fn new(
        simulator: Simulator,
        clock: impl Fn() -> UnixMillis + Send + Sync + 'static,
    ) -> Self {
        Self {
            simulator: Mutex::new(simulator),
            clock: Box::new(clock),
        }
    }
}

impl Exchange for LocalNsm {
    fn exchange(&self, request: &[u8]) -> Result<Vec<u8>, NsmError> {
        let now = (self.clock)();
        // A panic while the lock is held would leave whole registers behind: each is set at once.
        let mut simulator = self
            .simulator
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(simulator.handle(request, now))
    }
}

impl fmt::Debug for LocalNsm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LocalNsm").finish_non_exhaustive()
    }
}
