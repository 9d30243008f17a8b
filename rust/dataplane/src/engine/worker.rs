//! Threads: workers that serve, and one that accepts for them.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use cloister_transport::{Accepted, Address, Bound, Detached};
use cloister_wire::config::{EnclaveConfig, Handling};
use tokio::sync::{Semaphore, mpsc, watch};

use super::counters::{Counters, add};
use super::settings::Settings;
use super::site::Site;
use super::tls::TlsConfigs;
use super::waiting::Waiting;
use super::{connection, passthrough};
use crate::clock::Clock;
use crate::documents::Documents;
use crate::health::services::Services;
use crate::held::HeldBytes;
use crate::live::Live;
use crate::log_ring::LogSink;

/// Connections that wait for a worker to take them over.
pub(super) const QUEUE: usize = 256;

/// The acceptor's name among the services.
const INGRESS: &str = "ingress";

/// How the accepting thread reaches a worker.
pub(super) struct Handoff {
    pub(super) sender: mpsc::Sender<Accepted<Detached>>,
    /// Connections of this worker.
    pub(super) load: Arc<AtomicU64>,
}

/// Accepts, and chooses a worker.
pub(super) struct Acceptor {
    pub(super) ingress: Bound,
    pub(super) handoffs: Vec<Handoff>,
    pub(super) settings: Arc<Settings>,
    pub(super) counters: Arc<Counters>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) services: Services,
}

impl Acceptor {
    pub(super) fn spawn(self) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("acceptor".to_owned())
            .spawn(move || {
                runtime.block_on(self.serve());
            })
    }

    /// Accepts until the end.
    async fn serve(self) {
        let services = self.services.clone();
        services.run(INGRESS);
        if let Err(error) = self.run().await {
            tracing::error!(%error, "the ingress listener failed");
            services.fail(INGRESS);
        }
    }

    async fn run(mut self) -> io::Result<()> {
        let listener = self.ingress.attach()?;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.draining.wait_for(|is_draining| *is_draining) => return Ok(()),
                _ = self.stopping.wait_for(|is_stopping| *is_stopping) => return Ok(()),
                accepted = listener.accept_detached() => accepted?,
            };
            let lightest = self
                .handoffs
                .iter()
                .min_by_key(|handoff| handoff.load.load(Ordering::Relaxed));
            let loads = self.handoffs.iter();
            let active = loads
                .map(|handoff| handoff.load.load(Ordering::Relaxed))
                .fold(0, u64::saturating_add);
            let Some(handoff) = lightest.filter(|_| active < self.settings.max_connections) else {
                add(&self.counters.shed, 1);
                continue;
            };
            add(&self.counters.connections, 1);
            handoff.load.fetch_add(1, Ordering::Relaxed);
            // A queue that is full is waited for: the kernel has one too, and a crowd of clients is not
            // refused for having come at once.
            if handoff.sender.send(accepted).await.is_err() {
                // The worker is gone.
                handoff.load.fetch_sub(1, Ordering::Relaxed);
                add(&self.counters.shed, 1);
            }
        }
    }
}

/// Connections of all workers.
pub(super) fn connections(loads: &[Arc<AtomicU64>]) -> u64 {
    let loads = loads.iter().map(|load| load.load(Ordering::Relaxed));
    loads.fold(0, u64::saturating_add)
}

/// What a worker is made of.
pub(super) struct Worker {
    pub(super) config: Arc<EnclaveConfig>,
    pub(super) settings: Arc<Settings>,
    pub(super) handling: Handling,
    pub(super) proxy_protocol: bool,
    pub(super) upstream: Address,
    pub(super) live: Arc<ArcSwap<Live>>,
    pub(super) tls: Option<Arc<TlsConfigs>>,
    pub(super) documents: Arc<Documents>,
    pub(super) sink: Option<LogSink>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) held: HeldBytes,
    pub(super) load: Arc<AtomicU64>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) stopping: watch::Receiver<bool>,
}

impl Worker {
    pub(super) fn spawn(
        self,
        number: usize,
        incoming: mpsc::Receiver<Accepted<Detached>>,
        beside: Option<Acceptor>,
    ) -> io::Result<JoinHandle<()>> {
        // A local runtime stays on the thread that makes it. A `LocalSet` would do, and cost a system
        // call and a turn of the reactor for many of the events.
        let (started, is_started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(tokio::runtime::LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        // Whoever starts workers is there until it has heard of all.
                        drop(started.send(Ok(())));
                        runtime.block_on(async {
                            // All work is in tasks: to wake what a runtime blocks on costs a turn of
                            // the reactor, to wake a task does not.
                            let ended = tokio::task::spawn_local(self.run(incoming, beside)).await;
                            if let Err(error) = ended {
                                tracing::error!(%error, "a worker failed");
                            }
                        });
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            })?;
        match is_started.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(error)) => Err(error),
            Err(_ended) => Err(io::Error::other("a worker ended before it began")),
        }
    }

    async fn run(self, mut incoming: mpsc::Receiver<Accepted<Detached>>, beside: Option<Acceptor>) {
        if let Some(acceptor) = beside {
            tokio::task::spawn_local(acceptor.serve());
        }
        let (load, mut stopping) = (Arc::clone(&self.load), self.stopping.clone());
        let counters = Arc::clone(&self.counters);
        let waiting = Rc::new(Waiting::new(
            self.settings.max_waiting,
            Arc::clone(&counters),
        ));
        let handshakes = Rc::new(Semaphore::new(self.settings.max_handshakes));
        let mut draining = self.draining.clone();
        let site = Rc::new(Site::new(self));
        let seats = Rc::clone(&site);
        tokio::task::spawn_local(async move {
            // An engine that is gone drains nobody.
            if draining.wait_for(|is_draining| *is_draining).await.is_ok() {
                seats.seats.drain();
            }
        });
        tokio::task::spawn_local(let_go_of_ended_keys(Rc::clone(&site)));
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
                accepted = incoming.recv() => accepted,
            };
            let Some(accepted) = accepted else {
                // The acceptor has ended; what is in flight goes on until the engine is dropped.
                let _stopped = stopping.wait_for(|is_stopping| *is_stopping).await;
                return;
            };
            let end = End(Arc::clone(&load));
            site.arrivals.set(site.arrivals.get().wrapping_add(1));
            let place = waiting.enter();
            let number = place.number();
            let (site, handshakes) = (Rc::clone(&site), Rc::clone(&handshakes));
            // Two kinds of task: each has the room that the most of its waits needs.
            let task = if let Handling::Passthrough { replays_header } = site.handling {
                tokio::task::spawn_local(async move {
                    let _end = end;
                    passthrough::serve(&site, accepted, place, replays_header).await;
                })
            } else {
                tokio::task::spawn_local(async move {
                    let _end = end;
                    connection::serve(site, accepted, place, handshakes).await;
                })
            };
            waiting.watch(number, task.abort_handle());
        }
    }
}

/// A worker keeps a copy of what is true until it looks again. One that serves nobody looks too, so
/// that app keys are wiped when their bundle ends, and what was derived with them is. Ends with the
/// worker's runtime.
///
/// While connections arrive it looks more often than any of their timers fires: to set a timer that
/// is the next one costs two system calls, to set one behind another costs none.
async fn let_go_of_ended_keys(site: Rc<Site>) {
    let mut before = 0;
    loop {
        let arrivals = site.arrivals.get();
        let pause = if arrivals == before {
            LOOK_AGAIN
        } else {
            LOOK_SOON
        };
        before = arrivals;
        tokio::time::sleep(pause).await;
        site.forget_old_keys();
    }
}

/// How often an idle worker looks at what is true: more often than a connection has to be looked at.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(250);
/// How often one does to which connections come: more often than a handshake has to be.
const LOOK_SOON: std::time::Duration = std::time::Duration::from_millis(40);

/// Gives a connection's place back, however it ends.
struct End(Arc<AtomicU64>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
