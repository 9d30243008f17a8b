//! What is done about a store that does not hold what the platform recorded.
//!
//! Whether that is so is decided in [`super`]. The host is told, for its operator to see; that it may
//! be the host's own doing changes nothing, for the counters of [`crate::objects::ObjectStats`] say so
//! as well.

use std::time::Duration;

use cloister_wire::agent::Event;
use tokio::time::Instant;

use super::{SharedError, SharedOrders};

impl SharedOrders {
    /// Says that the store does not hold what the platform recorded, which is then replaced.
    ///
    /// A host that gives back nonsense each time would have enclaves replace it without end, and each
    /// time order a certificate: one enclave does it once in [`REPLACE_PAUSE`].
    pub(super) async fn notice(&mut self, name: &str, version: u64) -> Result<(), SharedError> {
        let now = Instant::now();
        let is_soon = |at: Instant| now.duration_since(at) < REPLACE_PAUSE;
        if self.replaced.is_some_and(is_soon) {
            return Err(SharedError::Contended);
        }
        self.replaced = Some(now);
        let message =
            format!("the object store lost or changed `{name}`, version {version}: it is replaced");
        tracing::warn!("{message}");
        let event = Event {
            kind: "warning".to_owned(),
            message,
        };
        if let Err(error) = self.orders.agent.event(event).await {
            tracing::debug!(%error, "an event was not delivered");
        }
        Ok(())
    }
}

/// Shortest time between two replacements of an object that the host lost or changed.
const REPLACE_PAUSE: Duration = Duration::from_secs(60);
