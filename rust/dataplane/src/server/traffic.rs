//! The seam between the services and the engine that moves requests.

mod stats;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use cloister_transport::{Address, Bound};
use cloister_wire::config::EnclaveConfig;

use crate::certificate::Certificates;
use crate::clock::Clock;
use crate::documents::Documents;
use crate::health::services::Services;
use crate::held::HeldBytes;
use crate::live::Live;
use crate::log_ring::LogSinks;

pub use stats::{
    Handshake, HandshakeFailure, LATENCY_MICROS, Reason, StatusGroup, TrafficStats, UpstreamError,
    UpstreamUse,
};

/// What an engine is started with.
pub struct TrafficParts {
    /// The measured configuration.
    pub config: Arc<EnclaveConfig>,
    /// Where connections are accepted.
    pub ingress: Bound,
    /// Whether each begins with a PROXY v2 header.
    pub proxy_protocol: bool,
    /// Where the user process listens.
    pub upstream: Address,
    /// Threads.
    pub workers: usize,
    /// What requests are judged by.
    pub live: Arc<ArcSwap<Live>>,
    /// The certificate in use; none where TLS does not end here.
    pub certificates: Option<Arc<Certificates>>,
    /// Attestation documents.
    pub documents: Arc<Documents>,
    /// Makes one log sink for each worker.
    pub logs: LogSinks,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Told when the ingress can accept no more.
    pub services: Services,
    pub(crate) held: HeldBytes,
}

/// Starts an engine.
pub type StartTraffic = Box<dyn FnOnce(TrafficParts) -> io::Result<Arc<dyn Traffic>> + Send>;

/// The engine of this crate.
pub fn engine() -> StartTraffic {
    Box::new(crate::engine::start)
}

/// An engine that runs. Dropping it ends it.
pub trait Traffic: Send + Sync {
    /// Stops accepting, and is done when nothing is in flight or `grace` is over.
    fn drain(&self, grace: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Counters.
    fn stats(&self) -> TrafficStats;
}

/// Where the running engine is found.
#[derive(Default)]
pub(crate) struct Slot {
    running: ArcSwapOption<Arc<dyn Traffic>>,
    /// Counters at its end.
    last: ArcSwap<TrafficStats>,
}

impl Slot {
    pub(crate) fn fill(&self, traffic: Arc<dyn Traffic>) {
        self.running.store(Some(Arc::new(traffic)));
    }

    pub(crate) fn stats(&self) -> TrafficStats {
        let running = self.running.load();
        match running.as_ref() {
            Some(traffic) => traffic.stats(),
            None => **self.last.load(),
        }
    }

    /// Drains the engine until `hurry` is done, and ends it; its counters stay.
    pub(crate) async fn end(&self, grace: Duration, hurry: impl Future<Output = ()>) {
        let Some(traffic) = self.running.load_full() else {
            return;
        };
        tokio::select! {
            () = hurry => {}
            () = traffic.drain(grace) => {}
        }
        self.last.store(Arc::new(traffic.stats()));
        self.running.store(None);
    }
}

impl fmt::Debug for TrafficParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TrafficParts")
            .field("ingress", &self.ingress)
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}
