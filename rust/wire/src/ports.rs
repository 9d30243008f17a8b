//! Ports of the host–enclave link and of the enclave's loopback, and the names of the Unix sockets
//! that stand for vsock ports in the sandbox.

/// Vsock port in the enclave: ingress, PROXY v2 and then TLS.
pub const INGRESS: u32 = 7777;
/// Vsock port in the enclave: health, metrics, drain.
pub const HEALTH: u32 = 7779;
/// Vsock port on the host: the agent API.
pub const AGENT: u32 = 7776;
/// Vsock port on the host: egress streams.
pub const EGRESS: u32 = 4433;
/// Vsock port on the host: boot heartbeat (the Nitro runner's own protocol).
pub const HEARTBEAT: u32 = 9000;
/// Vsock CID of the parent instance, as seen from an enclave (AWS: "the parent CID is always 3").
pub const PARENT_CID: u32 = 3;

/// TCP port on the enclave's loopback: the internal API. Reserved.
pub const INTERNAL_API: u16 = 9999;
/// UDP and TCP port on the enclave's loopback: DNS. Reserved when egress is on.
pub const DNS: u16 = 53;
/// TCP port on the enclave's loopback: redirected egress connections. Reserved when egress is on.
pub const EGRESS_REDIRECT: u16 = 4444;
/// Port of the user process when neither `[service] port` nor EXPOSE names one.
pub const DEFAULT_SERVICE: u16 = 8008;

/// File name of the Unix socket that stands for a vsock port the enclave listens on.
pub fn enclave_socket(port: u32) -> String {
    format!("enclave-{port}.sock")
}

/// File name of the Unix socket that stands for a vsock port the host listens on.
pub fn host_socket(port: u32) -> String {
    format!("host-{port}.sock")
}

/// File name of the Unix socket on which the sandbox launcher serves the simulated NSM.
pub const NSM_SOCKET: &str = "nsm.sock";
