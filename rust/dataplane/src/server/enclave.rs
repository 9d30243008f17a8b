//! The data plane inside an enclave: what init's second process runs.

use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use cloister_nsm::NsmProvider;
use cloister_transport::{Address, EnclaveEndpoints};
use cloister_wire::config::EnclaveConfig;
use cloister_wire::ports::INTERNAL_API;

use super::traffic::StartTraffic;
use super::{DataPlane, DataPlaneOptions, Ingress, InitChannel, ServerError};
use crate::agent::http::HttpAgent;
use crate::clock::{Disciplined, System};

/// What init gives its data plane.
pub struct InEnclave {
    /// `/cloister/config.json`, read.
    pub config: EnclaveConfig,
    /// Vsock, or the sandbox's sockets.
    pub endpoints: EnclaveEndpoints,
    /// `/dev/nsm`, or the sandbox's socket.
    pub nsm: Arc<dyn NsmProvider>,
    /// The data plane's end of the channel to init.
    pub control_fd: OwnedFd,
    /// Init says whether the user process is healthy; else the data plane asks the process.
    pub is_health_told: bool,
}

/// Runs until init asks for a drain and it is over.
///
/// # Errors
///
/// [`ServerError`]: the data plane cannot start or cannot go on; init starts it again.
pub fn run_in_enclave(inside: InEnclave) -> Result<(), ServerError> {
    let options = options(inside, super::traffic::engine());
    DataPlane::start(options)?.join()
}

fn options(inside: InEnclave, start_traffic: StartTraffic) -> DataPlaneOptions {
    let config = Arc::new(inside.config);
    let local = |port| Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    };
    let agent = HttpAgent::new(inside.endpoints.agent);
    DataPlaneOptions {
        ingress: Ingress::Late(inside.endpoints.ingress),
        proxy_protocol: true,
        upstream: local(config.service.port),
        workers: std::thread::available_parallelism().map_or(1, usize::from),
        health: Some(inside.endpoints.health),
        internal_api: Some(local(INTERNAL_API)),
        objects: Some(Arc::new(agent.clone())),
        agent: Arc::new(agent),
        nsm: inside.nsm,
        clock: Arc::new(Disciplined::new(System)),
        certificate: None,
        control: Some(InitChannel {
            stream: UnixStream::from(inside.control_fd),
            tells_health: inside.is_health_told,
        }),
        config,
        start_traffic,
    }
}

impl fmt::Debug for InEnclave {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("InEnclave")
            .field("config", &self.config)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}
