//! Who connected, as text: made once for a connection, written with every request.

use std::net::SocketAddr;

/// The client of a connection: the host's word.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its address.
    pub(super) ip: String,
    /// Our element of `Forwarded` (RFC 7239 §6: an IPv6 address is bracketed and quoted).
    pub(super) forwarded: String,
}

impl Peer {
    /// An IPv4 address that was mapped into IPv6 is given as IPv4.
    pub(super) fn new(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical().to_string();
        let forwarded = if ip.contains(':') {
            format!("for=\"[{ip}]\";proto=https")
        } else {
            format!("for={ip};proto=https")
        };
        Self { ip, forwarded }
    }
}
