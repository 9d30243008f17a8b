//! The seam between the services and the engine that moves requests.

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
use crate::live::Live;
use crate::log_ring::LogSinks;

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

/// Counters of the traffic since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficStats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open.
    pub active_connections: u64,
    /// Handshakes that failed or took too long.
    pub failed_handshakes: u64,
    /// Connections shed because there were too many.
    pub shed: u64,
    /// Requests begun.
    pub requests: u64,
    /// Requests in flight.
    pub active_requests: u64,
    /// WebSocket sessions begun; each is a request too.
    pub websockets: u64,
    /// WebSocket sessions open.
    pub active_websockets: u64,
    /// Raw sessions begun: TCP inside TLS, or connections whose TLS is the user process's.
    pub sessions: u64,
    /// Raw sessions open.
    pub active_sessions: u64,
    /// Connections closed for want of a good PROXY header.
    pub refused_headers: u64,
    /// Requests the data plane itself answered with an error, and raw sessions it closed at once.
    pub refused: u64,
    /// Fields that were opened.
    pub fields_opened: u64,
    /// Bytes from clients, after TLS where it ends here.
    pub bytes_in: u64,
    /// Bytes to clients, before TLS where it ends here.
    pub bytes_out: u64,
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
