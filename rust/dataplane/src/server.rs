//! Assembles the data plane: starts the services in the order of data-plane.md §6, then the engine,
//! and drains both.
//!
//! One thread runs the services on a runtime of its own; the engine has its workers. [`enclave`]
//! chooses what an enclave needs; `cloister dev` chooses differently.

pub mod enclave;
mod events;
mod lifecycle;
mod parts;
pub mod traffic;

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use cloister_nsm::NsmProvider;
use cloister_transport::{Address, Bound};
use cloister_wire::config::EnclaveConfig;
use cloister_wire::health::Health;
use thiserror::Error;
use tokio::sync::watch;

pub use self::enclave::{InEnclave, run_in_enclave};
use self::traffic::{StartTraffic, TrafficStats};
use crate::agent::AgentApi;
use crate::certificate::CertificateError;
use crate::clock::Clock;
use crate::health::{Board, Phase};
use crate::nsm_thread::NsmCallError;
use crate::objects::ObjectStore;

/// Where client connections arrive.
#[derive(Debug)]
pub enum Ingress {
    /// Listens from the start; connections wait until the data plane accepts.
    Bound(Bound),
    /// Listens when the data plane accepts, and not before.
    Late(Address),
}

/// Certificate and key that are used instead of ordered ones, PEM.
pub struct GivenCertificate {
    /// Chain, leaf first.
    pub chain: Vec<u8>,
    /// Private key of the leaf.
    pub key: Vec<u8>,
}

/// The channel to init.
#[derive(Debug)]
pub struct InitChannel {
    /// The data plane's end.
    pub stream: UnixStream,
    /// Init says whether the user process is healthy; else the data plane asks the process.
    pub tells_health: bool,
}

/// Everything a data plane is made of.
pub struct DataPlaneOptions {
    /// The measured configuration.
    pub config: Arc<EnclaveConfig>,
    /// Where clients connect.
    pub ingress: Ingress,
    /// Whether each connection begins with a PROXY v2 header.
    pub proxy_protocol: bool,
    /// Where the user process listens.
    pub upstream: Address,
    /// Threads of the engine.
    pub workers: usize,
    /// Health port, when there is one.
    pub health: Option<Address>,
    /// Internal API, when there is one.
    pub internal_api: Option<Address>,
    /// The host.
    pub agent: Arc<dyn AgentApi>,
    /// Where sealed objects are kept, when there is a place: then the TLS key is shared.
    pub objects: Option<Arc<dyn ObjectStore>>,
    /// The NSM.
    pub nsm: Arc<dyn NsmProvider>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// A certificate that was given; without one it is ordered.
    pub certificate: Option<GivenCertificate>,
    /// The channel to init, when there is one: then the user process is started when its secrets
    /// are there, and traffic is accepted when it is healthy.
    pub control: Option<InitChannel>,
    /// Starts the engine.
    pub start_traffic: StartTraffic,
}

/// Why a data plane does not start, or ended.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The given certificate and key cannot be used, or none can be made.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// The channel to init broke.
    #[error("the channel to init failed")]
    Control(#[source] io::Error),
    /// The random source of the process failed.
    #[error("the random source failed")]
    Random,
    /// The system has no thread, runtime or descriptor to give.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The NSM cannot be used.
    #[error("{0}")]
    Nsm(#[from] NsmCallError),
    /// A service key of the configuration is not 32 bytes of base64.
    #[error("`trust.service_keys[{position}]` is not an Ed25519 public key in base64")]
    ServiceKey {
        /// Its place, from 0.
        position: usize,
    },
    /// A service without which nothing is served has ended.
    #[error("`{service}` has failed")]
    Service {
        /// Its name.
        service: &'static str,
    },
    /// Not accepting in time; the health says what is missing.
    #[error("not ready after {} s: {reason}", after.as_secs_f32())]
    NotReady {
        /// How long was waited.
        after: Duration,
        /// What the health says.
        reason: String,
    },
    /// The thread of the services ended.
    #[error("the data plane has ended")]
    Ended,
}

/// A data plane that runs. Dropping it stops it without a drain.
pub struct Handle {
    board: Arc<Board>,
    phase: watch::Receiver<Phase>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), ServerError>>>>,
}

/// What the handle and the services' thread both hold.
pub(crate) struct Shared {
    /// Where it listens, once it does.
    address: watch::Sender<Option<Address>>,
    internal_api: watch::Sender<Option<Address>>,
    health: watch::Sender<Option<Address>>,
    /// Grace period; zero stops at once.
    stop: watch::Sender<Option<Duration>>,
}

/// Starts data planes.
#[derive(Debug)]
pub struct DataPlane;

impl DataPlane {
    /// Starts one and returns as soon as its services run; [`Handle::wait_until_accepting`] waits
    /// for the rest.
    ///
    /// # Errors
    ///
    /// [`ServerError`]: what cannot be put right by waiting.
    pub fn start(options: DataPlaneOptions) -> Result<Handle, ServerError> {
        let shared = Arc::new(Shared::new());
        let (started, is_started) = mpsc::sync_channel(1);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("services".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(lifecycle::run(options, for_thread, started))
            })?;
        match is_started.recv() {
            Ok(board) => Ok(Handle {
                phase: board.phase.subscribe(),
                board,
                shared,
                thread: Mutex::new(Some(thread)),
            }),
            Err(_ended_before) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => Err(ServerError::Ended),
            },
        }
    }
}

impl Handle {
    /// Where clients connect, once it listens.
    pub fn address(&self) -> Option<Address> {
        self.shared.address.borrow().clone()
    }

    /// Where the internal API listens, when it does.
    pub fn internal_api(&self) -> Option<Address> {
        self.shared.internal_api.borrow().clone()
    }

    /// Where health is asked, when it is.
    pub fn health_address(&self) -> Option<Address> {
        self.shared.health.borrow().clone()
    }

    /// The whole state.
    pub fn health(&self) -> Health {
        self.board.health()
    }

    /// The board, for whoever shows more than health.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Counters of the traffic; zeros until it is accepted.
    pub fn stats(&self) -> TrafficStats {
        self.board.traffic.stats()
    }

    /// Blocks until traffic is accepted, for at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotReady`]; [`ServerError::Ended`] when it cannot come to that any more.
    pub fn wait_until_accepting(&self, limit: Duration) -> Result<(), ServerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let mut phase = self.phase.clone();
        let accepting = phase.wait_for(|phase| *phase == Phase::Accepting);
        let outcome = runtime.block_on(async {
            tokio::time::timeout(limit, accepting)
                .await
                .map(|phase| phase.is_ok())
        });
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => Err(ServerError::Ended),
            Err(_elapsed) => Err(ServerError::NotReady {
                after: limit,
                reason: self.health().reason.unwrap_or_default(),
            }),
        }
    }

    /// Stops accepting, waits at most `grace` for what is in flight, ships the logs, and ends.
    ///
    /// # Errors
    ///
    /// Why the services ended, when it was not this call.
    pub fn drain(&self, grace: Duration) -> Result<(), ServerError> {
        self.shared.end_within(grace);
        self.join()
    }

    /// Ends at once, also a drain that is under way; what is in flight is broken off.
    ///
    /// # Errors
    ///
    /// As [`Self::drain`].
    pub fn stop(&self) -> Result<(), ServerError> {
        self.drain(Duration::ZERO)
    }

    /// Blocks until it ended by itself: a drain that was asked for from outside, or a failure.
    ///
    /// # Errors
    ///
    /// Why it ended.
    pub fn join(&self) -> Result<(), ServerError> {
        // A second caller waits here for the first.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        match thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_panic)) => Err(ServerError::Ended),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left to hear why.
        drop(self.stop());
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            address: watch::channel(None).0,
            internal_api: watch::channel(None).0,
            health: watch::channel(None).0,
            stop: watch::channel(None).0,
        }
    }

    /// Asks for the end. Who asks for less has the last word, in whatever order two callers come here.
    fn end_within(&self, grace: Duration) {
        self.stop.send_if_modified(|asked| {
            let is_sooner = asked.is_none_or(|before| grace < before);
            if is_sooner {
                *asked = Some(grace);
            }
            is_sooner
        });
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.board.fmt(formatter)
    }
}

impl fmt::Debug for GivenCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GivenCertificate")
    }
}

impl fmt::Debug for DataPlaneOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DataPlaneOptions")
            .field("ingress", &self.ingress)
            .field("upstream", &self.upstream)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
