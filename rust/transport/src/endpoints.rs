//! The four addresses of an enclave: two it listens on, two it calls.

use std::path::Path;

use cloister_wire::ports;

use crate::address::{Address, VSOCK_CID_ANY};

/// Where the streams between one enclave and its host go.
///
/// `ingress` and `health` are listened on by the enclave, `agent` and `egress` by the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclaveEndpoints {
    /// Client connections: PROXY v2, then TLS.
    pub ingress: Address,
    /// Health, metrics, drain.
    pub health: Address,
    /// The agent API.
    pub agent: Address,
    /// Egress streams.
    pub egress: Address,
}

impl EnclaveEndpoints {
    /// Inside an enclave on real vsock: listens on any CID, calls the parent instance.
    pub fn vsock() -> Self {
        Self {
            ingress: Address::Vsock {
                cid: VSOCK_CID_ANY,
                port: ports::INGRESS,
            },
            health: Address::Vsock {
                cid: VSOCK_CID_ANY,
                port: ports::HEALTH,
            },
            agent: Address::Vsock {
                cid: ports::PARENT_CID,
                port: ports::AGENT,
            },
            egress: Address::Vsock {
                cid: ports::PARENT_CID,
                port: ports::EGRESS,
            },
        }
    }

    /// In the sandbox, on both sides: Unix sockets in `dir`.
    pub fn sandbox(dir: &Path) -> Self {
        let enclave = |port| Address::Unix(dir.join(ports::enclave_socket(port)));
        let host = |port| Address::Unix(dir.join(ports::host_socket(port)));
        Self {
            ingress: enclave(ports::INGRESS),
            health: enclave(ports::HEALTH),
            agent: host(ports::AGENT),
            egress: host(ports::EGRESS),
        }
    }
}
