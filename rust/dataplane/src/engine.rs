//! The engine: accepts connections, ends TLS, and moves requests between clients and the user
//! process.
//!
//! Each connection goes to the worker with the fewest. A worker is a thread with a runtime of its own
//! and shares nothing on the request path: what is true right now it reads through one atomic
//! pointer. What is done with a connection the configuration says: requests, or bytes inside TLS or
//! around it. HTTP/1 is judged by `cloister-http` before anything else looks at it.
//! Nothing here decides who may connect or what a token holds; [`crate::live`] and
//! `cloister-ciphertext` do.

mod attest;
mod bridge;
mod connection;
mod counters;
mod deadline;
mod duplex;
mod gather;
mod h1;
mod h2;
mod handshake;
mod inbox;
mod judge;
mod lines;
mod log;
pub(crate) mod opening;
mod outcome;
mod outgoing;
mod passthrough;
mod peer;
mod pool;
mod process;
mod proxy;
mod refusal;
mod seats;
mod session;
mod settings;
mod site;
mod tcp;
mod tls;
mod tunnel;
mod waiting;
mod worker;

use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use cloister_wire::config::Handling;

use crate::server::traffic::{Traffic, TrafficParts, TrafficStats};
use counters::Counters;
use settings::Settings;
use tls::TlsConfigs;
use worker::{Handoff, Worker};

/// A running engine. Dropping it breaks off what is in flight.
struct Engine {
    counters: Vec<Arc<Counters>>,
    /// Connections of each worker.
    loads: Vec<Arc<AtomicU64>>,
    drain: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Starts an engine: `parts.workers` workers, and an accepting thread when there are several.
///
/// # Errors
///
/// The configuration asks for a layer that could not be there; TLS cannot be configured; the system
/// has no thread, runtime or descriptor to give.
pub(crate) fn start(parts: TrafficParts) -> io::Result<Arc<dyn Traffic>> {
    let workers = parts.workers.max(1);
    let settings = Arc::new(Settings::new(&parts.config, workers));
    let handling = parts.config.handling().map_err(io::Error::other)?;
    let tls = match handling {
        Handling::Passthrough { .. } => None,
        Handling::Http | Handling::Tcp => {
            let certificates = parts.certificates.ok_or(io::ErrorKind::InvalidInput)?;
            Some(Arc::new(TlsConfigs::new(certificates, &parts.config)?))
        }
    };
    let (drain, draining) = watch::channel(false);
    let (stop, stopping) = watch::channel(false);
    let mut handoffs = Vec::new();
    // The last ones are the acceptor's.
    let counters: Vec<_> = (0..=workers).map(|_| Arc::default()).collect();
    let mut made = Vec::new();
    for counters in counters.iter().take(workers) {
        let (sender, incoming) = mpsc::channel(worker::QUEUE);
        let load = Arc::default();
        handoffs.push(Handoff {
            sender,
            load: Arc::clone(&load),
        });
        let worker = Worker {
            config: Arc::clone(&parts.config),
            settings: Arc::clone(&settings),
            handling,
            proxy_protocol: parts.proxy_protocol,
            upstream: parts.upstream.clone(),
            live: Arc::clone(&parts.live),
            tls: tls.clone(),
            documents: Arc::clone(&parts.documents),
            sink: parts.config.logs.trx_logging.then(|| parts.logs.sink()),
            clock: Arc::clone(&parts.clock),
            counters: Arc::clone(counters),
            held: parts.held.clone(),
            load,
            draining: draining.clone(),
            stopping: stopping.clone(),
        };
        made.push((worker, incoming));
    }
    let loads = handoffs.iter().map(|handoff| Arc::clone(&handoff.load));
    let loads = loads.collect();
    let acceptor = worker::Acceptor {
        ingress: parts.ingress,
        handoffs,
        settings,
        counters: counters.last().map(Arc::clone).unwrap_or_default(),
        draining,
        stopping,
        services: parts.services,
    };
    let mut threads = Vec::new();
    // A worker that is alone accepts too: handing over to another thread would cost it a tenth of a
    // handshake, and nobody else could go on while it is busy.
    let mut beside = if workers > 1 {
        threads.push(acceptor.spawn()?);
        None
    } else {
        Some(acceptor)
    };
    for (number, (worker, incoming)) in made.into_iter().enumerate() {
        threads.push(worker.spawn(number, incoming, beside.take())?);
    }
    Ok(Arc::new(Engine {
        counters,
        loads,
        drain,
        stop,
        threads: Mutex::new(threads),
    }))
}

impl Traffic for Engine {
    fn drain(&self, grace: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.drain.send_replace(true);
            let idle = async {
                while worker::connections(&self.loads) > 0 {
                    tokio::time::sleep(DRAIN_POLL).await;
                }
            };
            // Over the grace period what is left is broken off with the engine.
            let _elapsed = tokio::time::timeout(grace, idle).await;
        })
    }

    fn stats(&self) -> TrafficStats {
        let mut stats = TrafficStats {
            active_connections: worker::connections(&self.loads),
            ..TrafficStats::default()
        };
        for counters in &self.counters {
            counters.add_to(&mut stats);
        }
        stats
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.drain.send_replace(true);
        self.stop.send_replace(true);
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A worker that panicked has said so already.
            drop(thread.join());
        }
    }
}

/// How often a drain looks whether connections are left.
const DRAIN_POLL: Duration = Duration::from_millis(10);
