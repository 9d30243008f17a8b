//! The measured limits, as the engine uses them.

use std::time::Duration;

use cloister_http::{ChunkLimits, HeadLimits};
use cloister_transport::Limits;
use cloister_wire::config::EnclaveConfig;

/// Descriptors kept for everything that is not a client connection.
const SPARE_DESCRIPTORS: u64 = 256;

/// Limits with their types.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) head: HeadLimits,
    pub(super) chunks: ChunkLimits,
    pub(super) max_body: Option<u64>,
    pub(super) head_timeout: Duration,
    pub(super) body_idle: Duration,
    pub(super) keepalive_idle: Duration,
    pub(super) tunnel_idle: Option<Duration>,
    pub(super) keepalive_requests: Option<u64>,
    pub(super) linger: Duration,
    pub(super) upstream_connect: Duration,
    pub(super) upstream_idle: Duration,
    pub(super) upstream_idle_connections: usize,
    pub(super) upstream_response: Duration,
    pub(super) interim_responses: u32,
    pub(super) h2_streams: u32,
    pub(super) h2_resets: u32,
    pub(super) decrypt_buffer: u64,
    pub(super) decrypt_cpu: u8,
    pub(super) max_file: usize,
    pub(super) max_token: usize,
    pub(super) distinct_keys: u32,
    /// Of connections that pass untouched.
    pub(super) passing: Limits,
    pub(super) max_connections: u64,
    pub(super) max_handshakes: usize,
    pub(super) max_waiting: usize,
    pub(super) handshake_timeout: Duration,
}

impl Settings {
    /// Bounds of handshakes and of waiting connections are shared out among the workers.
    pub(super) fn new(config: &EnclaveConfig, workers: usize) -> Self {
        let limits = &config.limits;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let share = |all: u32| count(all).checked_div(workers).unwrap_or(1).max(1);
        let asked = u64::from(config.acceptor.max_concurrent_connections);
        let possible = descriptor_limit().saturating_sub(SPARE_DESCRIPTORS) / 2;
        let max_connections = asked.min(possible.max(1));
        if max_connections < asked {
            tracing::warn!(
                asked,
                max_connections,
                "the descriptor limit bounds connections"
            );
        }
        Self {
            head: HeadLimits {
                head: size(limits.head),
                headers: count(limits.headers),
                target: size(limits.target),
            },
            chunks: ChunkLimits {
                extension: size(limits.chunk_extension),
                trailers: size(limits.trailers),
                trailer_lines: count(limits.headers),
            },
            max_body: limits.max_body,
            head_timeout: Duration::from_millis(limits.head_timeout),
            body_idle: Duration::from_millis(limits.body_idle),
            keepalive_idle: Duration::from_millis(limits.keepalive_idle),
            tunnel_idle: limits.tunnel_idle.map(Duration::from_millis),
            keepalive_requests: limits.keepalive_requests.map(u64::from),
            linger: Duration::from_millis(limits.linger),
            upstream_connect: Duration::from_millis(limits.upstream_connect),
            upstream_idle: Duration::from_millis(limits.upstream_idle),
            upstream_idle_connections: count(limits.upstream_idle_connections)
                .div_ceil(workers.max(1)),
            upstream_response: Duration::from_millis(limits.upstream_response),
            interim_responses: limits.interim_responses,
            h2_streams: limits.h2_streams,
            h2_resets: limits.h2_resets,
            decrypt_buffer: limits.decrypt_buffer,
            decrypt_cpu: limits.decrypt_cpu,
            max_file: size(limits.max_file),
            max_token: size(limits.max_token),
            distinct_keys: limits.distinct_keys_per_request,
            passing: Limits {
                idle: limits.tunnel_idle.map(Duration::from_millis),
                stall: Duration::from_millis(limits.body_idle),
                ..Limits::default()
            },
            max_connections,
            max_handshakes: share(config.acceptor.max_concurrent_handshakes),
            max_waiting: share(limits.max_waiting),
            handshake_timeout: Duration::from_millis(config.acceptor.handshake_timeout),
        }
    }
}

/// The soft limit of this process, from the kernel's own account; no limit when it does not say.
fn descriptor_limit() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next())
        .and_then(|soft| soft.parse().ok())
        .unwrap_or(u64::MAX)
}
