//! The record of a TCP session: the same members, `null` where a request would have said something.

use std::time::Duration;

use super::{member, number, optional};
use crate::engine::peer::Peer;
use crate::engine::site::Site;
use crate::log_ring::LogSink;

/// A record that is being made.
#[derive(Debug)]
pub(in crate::engine) struct SessionEntry {
    ts: u64,
    /// Members of its JSON object.
    members: Vec<u8>,
}

impl SessionEntry {
    /// What is known when the handshake is over.
    pub(in crate::engine) fn begin(site: &Site, context: &[u8; 32], peer: Option<&Peer>) -> Self {
        let ts = site.clock.now_ms();
        let mut out = Vec::with_capacity(RECORD_BYTES);
        out.extend_from_slice(&site.log_constants);
        out.extend_from_slice(b"\"txid\":\"");
        out.extend_from_slice(context);
        out.extend_from_slice(b"\",\"ts\":");
        number(ts, &mut out);
        member("remoteIp", &mut out);
        optional(peer.map(|peer| peer.ip.as_bytes()), &mut out);
        out.extend_from_slice(OF_A_REQUEST);
        Self { ts, members: out }
    }

    /// Hands the finished record over, with the bytes from the client and to it.
    pub(in crate::engine) fn end(
        mut self,
        received: u64,
        sent: u64,
        elapsed: Duration,
        sink: &LogSink,
    ) {
        let out = &mut self.members;
        super::elapsed(elapsed, out);
        for (name, value) in [("bytesIn", received), ("bytesOut", sent)] {
            member(name, out);
            number(value, out);
        }
        sink.record_members(self.ts, self.members);
    }
}

/// Room for a record, bytes.
const RECORD_BYTES: usize = 768;

const OF_A_REQUEST: &[u8] = concat!(
    r#","requestType":"TCP","requestMethod":null,"uri":null,"userAgent":null,"contentType":null"#,
    r#","requestHeaders":{},"responseContentType":null,"responseHeaders":{},"responseCode":null"#,
    r#","statusGroup":null,"apiKeyId":null,"nDecryptedFields":0"#,
)
.as_bytes();
