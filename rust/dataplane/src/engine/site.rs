//! What every request of one worker needs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use cloister_ciphertext::{KeyCache, OpenPolicy};
use cloister_transport::Scratch;
use cloister_wire::config::{EnclaveConfig, Handling};
use tokio::time::Instant;

use super::bridge::Bridges;
use super::counters::Counters;
use super::h1::Scratches;
use super::log::{self, Mask};
use super::opening::{Caches, Opening};
use super::pool::Pool;
use super::process::Multiplexed;
use super::seats::Seats;
use super::settings::Settings;
use super::tls::TlsConfigs;
use super::worker::Worker;
use crate::clock::Clock;
use crate::documents::Documents;
use crate::held::{Held, HeldBytes};
use crate::live::{Live, Serving};
use crate::log_ring::LogSink;

/// One worker's view of the enclave. It never leaves its thread.
pub(super) struct Site {
    pub(super) config: Arc<EnclaveConfig>,
    pub(super) settings: Arc<Settings>,
    pub(super) handling: Handling,
    pub(super) proxy_protocol: bool,
    /// None where TLS does not end here.
    pub(super) tls: Option<Arc<TlsConfigs>>,
    pub(super) documents: Arc<Documents>,
    pub(super) sink: Option<LogSink>,
    pub(super) mask: Mask,
    /// What every log record says.
    pub(super) log_constants: Vec<u8>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) pool: Pool,
    /// Connections that this worker took over.
    pub(super) arrivals: Cell<u64>,
    /// `Host` of requests that have none.
    pub(super) host: String,
    /// Connections to a user process that speaks HTTP/2.
    pub(super) multiplexed: Multiplexed,
    pub(super) opening: Opening,
    caches: Caches,
    begun: Instant,
    pub(super) scratches: Scratches,
    pub(super) bridges: Bridges,
    /// What connections pass through that are not read.
    pub(super) scratch: Scratch,
    pub(super) seats: Seats,
    held: HeldBytes,
    live: RefCell<Cache<Arc<ArcSwap<Live>>, Arc<Live>>>,
    ids: RefCell<Ids>,
}

impl Site {
    pub(super) fn new(worker: Worker) -> Self {
        let connect = worker.settings.upstream_connect;
        let multiplexed = Multiplexed::new(worker.upstream.clone(), connect, &worker.settings.head);
        let opening = Opening::new(worker.settings.decrypt_cpu);
        let pool = Pool::new(
            worker.upstream,
            &worker.settings,
            Arc::clone(&worker.counters),
        );
        Self {
            mask: Mask::new(&worker.config.logs),
            log_constants: log::constants(&worker.config),
            arrivals: Cell::new(0),
            host: format!("127.0.0.1:{}", worker.config.service.port),
            config: worker.config,
            settings: worker.settings,
            handling: worker.handling,
            proxy_protocol: worker.proxy_protocol,
            tls: worker.tls,
            documents: worker.documents,
            sink: worker.sink,
            clock: worker.clock,
            counters: worker.counters,
            multiplexed,
            pool,
            opening,
            caches: Caches::default(),
            begun: Instant::now(),
            scratches: Scratches::default(),
            bridges: Bridges::default(),
            scratch: Scratch::default(),
            seats: Seats::default(),
            held: worker.held,
            live: RefCell::new(Cache::new(worker.live)),
            ids: RefCell::default(),
        }
    }

    /// What is true right now; no lock is taken.
    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(self.live.borrow_mut().load())
    }

    /// Whether a raw session may begin: there is a bundle, and no drain.
    pub(super) fn takes_sessions(&self) -> bool {
        let serving = self.live().serving_at(self.clock.now_ms());
        serving == Serving::Ready && !self.is_draining()
    }

    /// The app keys in use, and what was derived with them.
    pub(super) fn keys(&self, live: &Live) -> Rc<KeyCache> {
        self.caches.of(live.keyring.as_ref())
    }

    /// How ciphertexts are opened here.
    pub(super) fn open_policy(&self) -> OpenPolicy {
        OpenPolicy {
            dangerous_accept_debug: self.config.debug,
            distinct_keys: self.settings.distinct_keys,
        }
    }

    /// Forgets derived keys that are too old, and those of a keyring that is not in use any more.
    pub(super) fn forget_old_keys(&self) {
        let live = self.live();
        self.caches
            .expire(live.keyring.as_ref(), self.begun.elapsed());
        let kept = u64::try_from(self.keys(&live).len()).unwrap_or(u64::MAX);
        self.counters.keys_kept.store(kept, Ordering::Relaxed);
    }

    /// A context id: 128 random bits as 32 upper-case hexadecimal digits.
    pub(super) fn context_id(&self) -> [u8; 32] {
        self.ids.borrow_mut().next()
    }

    /// Room for a body that is held whole; `None` when all held bodies would be over their limit.
    pub(super) fn hold(&self, bytes: u64) -> Option<Held> {
        self.held.hold(bytes)
    }

    /// Whether the enclave is being drained.
    pub(super) fn is_draining(&self) -> bool {
        self.seats.is_draining()
    }
}

/// The span of a request: what is said in it carries its context id. Nothing is formatted unless
/// somebody listens at this level.
pub(super) fn span(context: &[u8; 32]) -> tracing::Span {
    let ctx = || std::str::from_utf8(context).unwrap_or_default();
    tracing::debug_span!("request", ctx = ctx())
}

/// Random bytes drawn a page at a time: an id names a request, it protects nothing.
struct Ids {
    bytes: Box<[u8; 4096]>,
    used: usize,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            bytes: Box::new([0; 4096]),
            used: 4096,
        }
    }
}

impl Ids {
    fn next(&mut self) -> [u8; 32] {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        if self.used.saturating_add(16) > self.bytes.len() {
            // Without randomness ids repeat, which makes logs harder to read and nothing unsafe.
            let _unfilled = SystemRandom::new().fill(self.bytes.as_mut_slice());
            self.used = 0;
        }
        let end = self.used.saturating_add(16);
        let drawn = self.bytes.get(self.used..end).unwrap_or_default();
        self.used = end;
        let mut id = [b'0'; 32];
        for (pair, byte) in id.chunks_exact_mut(2).zip(drawn) {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xF)]);
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn said(most: tracing::Level) -> String {
        let said = Said::default();
        let writer = said.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(most)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            span(&[b'A'; 32]).in_scope(|| tracing::warn!("something is wrong"));
        });
        String::from_utf8(said.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn what_is_said_of_a_request_carries_its_context_id() {
        let id = "A".repeat(32);
        assert!(said(tracing::Level::DEBUG).contains(&format!("request{{ctx=\"{id}\"}}")));
        // Without a listener at that level there is no span to format.
        let quiet = said(tracing::Level::INFO);
        assert!(
            quiet.contains("something is wrong") && !quiet.contains(&id),
            "{quiet}"
        );
    }
}
