//! The Rust half of the agent API: ends the enclave's HTTP/1.1 connections, takes its logs, tells it
//! the time, and hands every other call to the Python half over a Unix socket.
//!
//! One server serves one enclave. Which enclave is asking is known from that and from nothing the
//! peer says. Limits are the constants at the end; wire.md §2 is the specification.

mod answer;
mod forward;
pub mod intake;
mod segments;
mod service;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cloister_transport::{Address, Bound, Listener, Stream};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use segments::LogWriter;
pub use segments::{SegmentError, SegmentLimits};
use service::Service;

/// What an agent server is given.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Where the enclave's calls arrive.
    pub listen: Address,
    /// Unix socket of the Python half.
    pub upstream: PathBuf,
    /// Folder of the log segments; made when absent, mode 0700.
    pub log_dir: PathBuf,
    /// Uuid of the enclave that calls here.
    pub enclave: String,
    /// Size and number of log segments.
    pub segments: SegmentLimits,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentStats {
    /// Requests answered, whatever the answer.
    pub requests: u64,
    /// Connections closed at once because there were [`MAX_CONNECTIONS`].
    pub refused: u64,
    /// Connections that ended with a malformed frame or a broken stream.
    pub failed: u64,
    /// Log records written.
    pub records: u64,
    /// Log records that were on disk already.
    pub duplicates: u64,
    /// Last sequence number on disk.
    pub acked: u64,
}

/// A running agent server. Dropping it stops it.
#[derive(Debug)]
pub struct AgentServer {
    address: Address,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    records: AtomicU64,
    duplicates: AtomicU64,
    acked: AtomicU64,
}

impl AgentServer {
    /// Opens the log folder, binds, starts two threads (connections, log writer) and returns.
    ///
    /// # Errors
    ///
    /// The log folder cannot be used; those of [`Bound::open`]; the system's when a thread cannot be
    /// made.
    pub fn start(options: AgentOptions) -> io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let (writer, writing) = LogWriter::start(
            &options.log_dir,
            &options.enclave,
            options.segments,
            Arc::clone(&counters),
        )?;
        let bound = Bound::open(&options.listen)?;
        let address = bound.local_address();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopping) = watch::channel(false);
        let service = Arc::new(Service::new(
            options.upstream,
            options.enclave,
            writer,
            Arc::clone(&counters),
        ));
        let serving = {
            let counters = Arc::clone(&counters);
            std::thread::Builder::new()
                .name("agent".to_owned())
                .spawn(move || runtime.block_on(serve(bound, service, counters, stopping)))?
        };
        Ok(Self {
            address,
            counters,
            stop,
            threads: Mutex::new(vec![serving, writing]),
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Counters.
    pub fn stats(&self) -> AgentStats {
        AgentStats {
            requests: self.counters.requests.load(Ordering::Relaxed),
            refused: self.counters.refused.load(Ordering::Relaxed),
            failed: self.counters.failed.load(Ordering::Relaxed),
            records: self.counters.records.load(Ordering::Relaxed),
            duplicates: self.counters.duplicates.load(Ordering::Relaxed),
            acked: self.counters.acked.load(Ordering::Relaxed),
        }
    }

    /// Closes every connection, finishes the log batch that is being written, and ends the threads.
    /// A second call does nothing.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A thread that panicked has closed what it held on the way.
            drop(thread.join());
        }
    }
}

impl Drop for AgentServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(
    bound: Bound,
    service: Arc<Service>,
    counters: Arc<Counters>,
    mut stopping: watch::Receiver<bool>,
) {
    let listener: Listener = match bound.attach() {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot listen");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        match accepted {
            Ok(accepted) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let (service, counters) = (Arc::clone(&service), Arc::clone(&counters));
                    tasks.spawn(connection(accepted.stream, place, service, counters));
                }
                Err(_all_taken) => {
                    counters.refused.fetch_add(1, Ordering::Relaxed);
                }
            },
            Err(error) => {
                tracing::error!(%error, "the listener is broken");
                return;
            }
        }
    }
}

/// Serves one connection. A malformed frame ends it and nothing else.
async fn connection(
    stream: Stream,
    place: OwnedSemaphorePermit,
    service: Arc<Service>,
    counters: Arc<Counters>,
) {
    let answering = service_fn(|request| {
        counters.requests.fetch_add(1, Ordering::Relaxed);
        let service = Arc::clone(&service);
        async move { Ok::<_, std::convert::Infallible>(service.answer(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), answering);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "agent connection failed");
        counters.failed.fetch_add(1, Ordering::Relaxed);
    }
    drop(place);
}

/// Connections of one enclave at one time: it has a handful.
pub const MAX_CONNECTIONS: usize = 64;
/// Largest head, in bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most header fields.
pub const MAX_HEADERS: usize = 64;
/// From the first byte a connection waits for to the end of a head. A kept-alive connection that
/// says nothing for longer is closed.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// From the end of a head to the end of its body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the Python half may take: the long poll of `GET /v1/bundle` and a margin.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
