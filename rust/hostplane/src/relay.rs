//! The relay: accepts on one address, connects to another, and moves bytes both ways, untouched.
//!
//! One acceptor hands each connection to the worker with the fewest; workers share nothing but their
//! counters. The relay knows nothing of TLS or HTTP. With `proxy_protocol` it says first, in a PROXY
//! v2 header, whom it accepted from; that is the host's word and the enclave treats it as such.
//! Where it connects to can be changed while it runs, for the connections that come after.

mod connection;
mod worker;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cloister_transport::{Accepted, Address, Bound, Detached, Limits, Meter};
use tokio::sync::{mpsc as async_mpsc, watch};

/// What a relay does. Times have defaults in [`RelayOptions::new`].
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Where it listens.
    pub listen: Address,
    /// Where it connects to, once for each connection it accepts, until [`Relay::retarget`].
    pub to: Address,
    /// Send a PROXY v2 header first.
    pub proxy_protocol: bool,
    /// Connections at one time; one more is closed at once and counted as refused.
    pub max_connections: u64,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long the PROXY header waits for the client's first bytes, to leave in one segment with
    /// them. A protocol in which the server speaks first pays this once a connection.
    pub first_bytes_wait: Duration,
    /// Idle and lingering time of a connection.
    pub limits: Limits,
    /// Threads, at least 1.
    pub workers: usize,
}

impl RelayOptions {
    /// A relay from `listen` to `to` with the default limits: 10 000 connections, 5 s to connect,
    /// an hour without a byte, one worker, no PROXY header.
    pub fn new(listen: Address, to: Address) -> Self {
        Self {
            listen,
            to,
            proxy_protocol: false,
            max_connections: 10_000,
            connect_timeout: Duration::from_secs(5),
            first_bytes_wait: Duration::from_millis(5),
            limits: Limits::default(),
            workers: 1,
        }
    }
}

/// Counters since the start, and how many connections there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Connections accepted, refused ones included.
    pub accepted: u64,
    /// Connections that are open.
    pub active: u64,
    /// Connections closed at once because there were `max_connections`.
    pub refused: u64,
    /// Connections closed because the other side could not be reached.
    pub connect_errors: u64,
    /// Connections that ended with a reset or another error.
    pub failed: u64,
    /// Connections ended because nothing moved.
    pub idle_closed: u64,
    /// Bytes from the accepted side to the other.
    pub bytes_in: u64,
    /// Bytes back.
    pub bytes_out: u64,
    /// The last reason why the other side could not be reached.
    pub last_error: Option<String>,
}

/// A running relay. Dropping it stops it.
#[derive(Debug)]
pub struct Relay {
    address: Address,
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    threads: Vec<JoinHandle<()>>,
    /// One message from each thread when it ends.
    ended: mpsc::Receiver<()>,
}

/// What a relay is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Accept no more; end when the last connection has.
    Draining,
    /// End.
    Stopped,
}

#[derive(Debug)]
struct Shared {
    options: RelayOptions,
    /// Where connections go that are accepted from now on.
    to: RwLock<Arc<Address>>,
    accepted: AtomicU64,
    refused: AtomicU64,
    last_error: Mutex<Option<String>>,
    workers: Vec<WorkerCounters>,
}

/// Counters of one worker, apart from the others' so that no two workers write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct WorkerCounters {
    active: AtomicU64,
    connect_errors: AtomicU64,
    failed: AtomicU64,
    idle_closed: AtomicU64,
    meter: Meter,
}

/// A connection on its way to worker `worker`; counted as active there until it is dropped.
#[derive(Debug)]
struct Job {
    accepted: Accepted<Detached>,
    place: Place,
}

/// A place among `max_connections`.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    worker: usize,
}

impl Relay {
    /// Binds, starts the threads and returns.
    ///
    /// # Errors
    ///
    /// Those of [`Bound::open`]; the system's when a thread or runtime cannot be made.
    pub fn start(options: RelayOptions) -> io::Result<Self> {
        let bound = Bound::open(&options.listen)?;
        let address = bound.local_address();
        let count = options.workers.max(1);
        let shared = Arc::new(Shared {
            to: RwLock::new(Arc::new(options.to.clone())),
            options,
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_error: Mutex::new(None),
            workers: (0..count).map(|_| WorkerCounters::default()).collect(),
        });
        let (phase, _) = watch::channel(Phase::Running);
        let (end, ended) = mpsc::channel();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| async_mpsc::unbounded_channel()).unzip();
        let mut door = Some((bound, senders));
        let mut relay = Self {
            address,
            shared: Arc::clone(&shared),
            phase,
            running: Mutex::new(Running {
                threads: Vec::with_capacity(count),
                ended,
            }),
        };
        for (index, jobs) in receivers.into_iter().enumerate() {
            let worker = worker::Worker {
                index,
                shared: Arc::clone(&shared),
                phase: relay.phase.subscribe(),
                jobs,
                door: door.take(),
            };
            // Dropping `relay` on the way out stops the threads that run already.
            let thread = worker.spawn(end.clone())?;
            let running = relay
                .running
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner);
            running.threads.push(thread);
        }
        Ok(relay)
    }

    /// The address it listens on: the real port where 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Lets connections that are accepted from now on go to `to`; those there are stay where they
    /// are.
    pub fn retarget(&self, to: Address) {
        *self
            .shared
            .to
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(to);
    }

    /// Counters.
    pub fn stats(&self) -> RelayStats {
        let sum = |field: fn(&WorkerCounters) -> &AtomicU64| {
            let values = self.shared.workers.iter().map(field);
            values
                .map(|value| value.load(Ordering::Relaxed))
                .fold(0, u64::wrapping_add)
        };
        RelayStats {
            accepted: self.shared.accepted.load(Ordering::Relaxed),
            active: sum(|worker| &worker.active),
            refused: self.shared.refused.load(Ordering::Relaxed),
            connect_errors: sum(|worker| &worker.connect_errors),
            failed: sum(|worker| &worker.failed),
            idle_closed: sum(|worker| &worker.idle_closed),
            bytes_in: sum(|worker| &worker.meter.forward),
            bytes_out: sum(|worker| &worker.meter.backward),
            last_error: self
                .shared
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    /// Stops accepting, waits up to `grace` for the connections there are, and stops.
    ///
    /// Returns how many connections were cut off.
    pub fn drain(&self, grace: Duration) -> u64 {
        self.advance(Phase::Draining);
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        for _ in &running.threads {
            let left = grace.saturating_sub(started.elapsed());
            if running.ended.recv_timeout(left).is_err() {
                break;
            }
        }
        drop(running);
        let left = self.stats().active;
        self.stop();
        left
    }

    /// Closes every connection and ends the threads. A second call does nothing.
    pub fn stop(&self) {
        self.advance(Phase::Stopped);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in running.threads.drain(..) {
            // A worker that panicked has closed its connections on the way.
            drop(thread.join());
        }
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = *phase != Phase::Stopped && *phase != to;
            if forward {
                *phase = to;
            }
            forward
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// The worker with the fewest connections, or `None` when all places are taken.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let mut total = 0_u64;
        let mut fewest = (u64::MAX, 0);
        for (index, worker) in self.workers.iter().enumerate() {
            let active = worker.active.load(Ordering::Relaxed);
            total = total.saturating_add(active);
            fewest = fewest.min((active, index));
        }
        if total >= self.options.max_connections {
            return None;
        }
        let (_, worker) = fewest;
        self.workers
            .get(worker)?
            .active
            .fetch_add(1, Ordering::Relaxed);
        Some(Place {
            shared: Arc::clone(self),
            worker,
        })
    }

    /// Where a connection goes that was accepted now.
    fn target(&self) -> Arc<Address> {
        Arc::clone(&self.to.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn note_connect_error(&self, to: &Address, error: &io::Error) {
        let text = format!("cannot connect to {to}: {error}");
        tracing::warn!("{text}");
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

impl Place {
    fn counters(&self) -> Option<&WorkerCounters> {
        self.shared.workers.get(self.worker)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(worker) = self.counters() {
            worker.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
