//! Who acts when, so that enclaves that started together do not act together.
//!
//! Chance keeps them apart, and nothing depends on it: the conditional write decides.

use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

/// Waits are shorter than a certificate's life: the sum can be said.
pub(super) fn after(moment: Instant, wait: Duration) -> Instant {
    moment.checked_add(wait).unwrap_or(moment)
}

/// How long others are let order first. Enclaves that wait together do not order together.
pub(super) fn patience() -> Duration {
    CHAIN_PATIENCE.saturating_add(CHAIN_PATIENCE.mul_f64(fraction()))
}

/// Up to a tenth earlier, so that enclaves that started together do not renew together.
pub(super) fn sooner(wait: Duration) -> Duration {
    wait.saturating_sub(wait.mul_f64(fraction() / 10.0))
}

/// A random number from 0 to 1; without randomness 0.
fn fraction() -> f64 {
    let mut bytes = [0; 2];
    let drawn = SystemRandom::new().fill(&mut bytes);
    drawn.map_or(0.0, |()| {
        f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
    })
}

/// How long the maker of a key is let order its certificate, at least; at most twice this.
const CHAIN_PATIENCE: Duration = Duration::from_secs(30);
