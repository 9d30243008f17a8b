//! Health of an enclave, as its port 7779 says it in JSON. "Unknown" is never healthy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the enclave is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Finishing what is in flight.
    Draining,
    /// It cannot serve; the reason says why.
    Failed,
    /// Waiting for its bundle.
    Provisioning,
    /// Serving.
    Ready,
    /// Booting.
    Starting,
}

/// Answer of `GET /health` on port 7779: 200 when [`State::Ready`] and the process is healthy, else 503.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// State.
    pub state: State,
    /// Why, when it is not ready or its process is not healthy.
    pub reason: Option<String>,
    /// Whether the user process passed its health check; `None`: not known yet.
    pub process_healthy: Option<bool>,
    /// How often the user process was restarted.
    pub process_restarts: u64,
    /// Version of the bundle in use.
    pub bundle_version: Option<u64>,
    /// End of the TLS certificate in use, seconds since the Unix epoch.
    pub certificate_not_after: Option<i64>,
    /// How far the clock in use is from the system's, which the host sets, milliseconds.
    #[serde(default)]
    pub clock_offset_ms: i64,
    /// Services without which nothing is served, and whether each runs. Empty: not said.
    #[serde(default)]
    pub services: BTreeMap<String, bool>,
    /// Transaction log records in the ring.
    pub log_ring_records: u64,
    /// Transaction log records dropped since boot.
    pub log_ring_dropped: u64,
    /// Size of the records in the ring, bytes.
    #[serde(default)]
    pub log_ring_bytes: u64,
    /// Size over which the oldest are dropped, bytes.
    #[serde(default)]
    pub log_ring_limit: u64,
}
