//! Transaction logs (data-plane specification §4): one record a request, WebSocket session or TCP
//! session, values masked.
//!
//! A record is written once, as the JSON it is sent as: it costs one allocation.

mod mask;
mod session;
mod text;

use std::time::Duration;

use cloister_http::{Known, RequestHead, ResponseHead};
use cloister_wire::config::EnclaveConfig;

use super::outcome::Totals;
use crate::engine::peer::Peer;
use crate::engine::site::Site;
use crate::live::ApiKeyId;
use crate::log_ring::LogSink;
pub(in crate::engine) use mask::Mask;
pub(in crate::engine) use session::SessionEntry;

/// What every record of an enclave says: members of its JSON object, each with a comma behind.
pub(in crate::engine) fn constants(config: &EnclaveConfig) -> Vec<u8> {
    let mut out = br#""type":"enclave""#.to_vec();
    for (name, value) in [
        ("resourceName", config.name.clone()),
        ("resourceUuid", config.uuid.to_string()),
        ("appUuid", config.app_uuid.to_string()),
        ("teamUuid", config.team_uuid.to_string()),
    ] {
        member(name, &mut out);
        text::write(value.as_bytes(), &mut out);
    }
    out.push(b',');
    out
}

/// A record that is being made.
#[derive(Debug)]
pub(in crate::engine) struct Entry {
    ts: u64,
    /// Members of its JSON object.
    members: Vec<u8>,
    /// What is not known, or not in order, before the end.
    api_key_id: Option<ApiKeyId>,
    is_answered: bool,
    is_websocket: bool,
}

impl Entry {
    /// What is known when the head is there.
    pub(in crate::engine) fn begin(
        site: &Site,
        head: &RequestHead,
        bytes: &[u8],
        context: &[u8; 32],
        peer: Option<&Peer>,
    ) -> Self {
        let ts = site.clock.now_ms();
        let mut out = Vec::with_capacity(RECORD_BYTES);
        out.extend_from_slice(&site.log_constants);
        out.extend_from_slice(b"\"txid\":\"");
        out.extend_from_slice(context);
        out.extend_from_slice(b"\",\"ts\":");
        number(ts, &mut out);
        out.extend_from_slice(b",\"requestMethod\":");
        text::write(head.method.of(bytes), &mut out);
        out.extend_from_slice(b",\"uri\":");
        uri(
            head.raw_target.of(bytes),
            site.config.logs.trx_log_query,
            &mut out,
        );
        out.extend_from_slice(b",\"remoteIp\":");
        optional(peer.map(|peer| peer.ip.as_bytes()), &mut out);
        let first = |known| head.fields.first(known).map(|field| field.value.of(bytes));
        out.extend_from_slice(b",\"userAgent\":");
        optional(first(Known::UserAgent), &mut out);
        out.extend_from_slice(b",\"contentType\":");
        optional(first(Known::ContentType), &mut out);
        out.extend_from_slice(b",\"requestHeaders\":");
        site.mask.headers(&head.fields, bytes, &mut out);
        Self {
            ts,
            members: out,
            api_key_id: None,
            is_answered: false,
            is_websocket: false,
        }
    }

    /// Which API key let the request in.
    pub(in crate::engine) fn authenticated(&mut self, id: ApiKeyId) {
        self.api_key_id = Some(id);
    }

    /// The final response head of the user process, or the 101 that makes this a session.
    pub(in crate::engine) fn answered(&mut self, site: &Site, head: &ResponseHead, bytes: &[u8]) {
        if std::mem::replace(&mut self.is_answered, true) {
            return;
        }
        self.is_websocket = head.status == 101;
        let content_type = head.fields.first(Known::ContentType);
        let out = &mut self.members;
        out.extend_from_slice(b",\"responseContentType\":");
        optional(content_type.map(|field| field.value.of(bytes)), out);
        out.extend_from_slice(b",\"responseHeaders\":");
        site.mask.headers(&head.fields, bytes, out);
    }

    /// The data plane's own answer.
    pub(in crate::engine) fn answered_here(&mut self) {
        if std::mem::replace(&mut self.is_answered, true) {
            return;
        }
        let rest = br#","responseContentType":"application/json","responseHeaders":{}"#;
        self.members.extend_from_slice(rest);
    }

    /// Hands the finished record over. A status of 0 says that the client had no answer.
    pub(in crate::engine) fn end(mut self, totals: &Totals, elapsed: Duration, sink: &LogSink) {
        let out = &mut self.members;
        if !self.is_answered {
            out.extend_from_slice(br#","responseContentType":null,"responseHeaders":{}"#);
        }
        out.extend_from_slice(b",\"requestType\":");
        out.extend_from_slice(if self.is_websocket {
            br#""Websocket""#
        } else {
            br#""HTTP""#
        });
        out.extend_from_slice(b",\"apiKeyId\":");
        optional(
            self.api_key_id.as_ref().map(|id| id.as_str().as_bytes()),
            out,
        );
        out.extend_from_slice(b",\"statusGroup\":");
        out.push(b'"');
        number(u64::from(totals.status / 100), out);
        out.extend_from_slice(b"XX\"");
        self::elapsed(elapsed, out);
        for (name, value) in [
            (&b",\"responseCode\":"[..], u64::from(totals.status)),
            (&b",\"bytesIn\":"[..], totals.bytes_in),
            (&b",\"bytesOut\":"[..], totals.bytes_out),
            (&b",\"nDecryptedFields\":"[..], totals.opening.opened),
        ] {
            out.extend_from_slice(name);
            number(value, out);
        }
        sink.record_members(self.ts, self.members);
    }
}

/// Room for an ordinary record, bytes.
const RECORD_BYTES: usize = 1024;

/// Appends the name of a member that is not the first.
fn member(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn optional(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        None => out.extend_from_slice(b"null"),
        Some(value) => text::write(value, out),
    }
}

/// Appends how long it took: milliseconds with three digits behind the point.
fn elapsed(elapsed: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    out.extend_from_slice(b",\"elapsed\":");
    number(micros / 1000, out);
    out.push(b'.');
    for unit in [100_u64, 10, 1] {
        number(micros.checked_div(unit).unwrap_or(0) % 10, out);
    }
}

/// Appends a target, with its query masked unless the configuration shows it.
fn uri(target: &[u8], shows_query: bool, out: &mut Vec<u8>) {
    let cut = memchr::memchr(b'?', target).filter(|_| !shows_query);
    out.push(b'"');
    text::write_inside(
        target
            .get(..cut.unwrap_or(target.len()))
            .unwrap_or_default(),
        out,
    );
    if cut.is_some() {
        out.extend_from_slice(b"?***");
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_masked_unless_it_is_asked_for() {
        let written = |target: &[u8], shows| {
            let mut out = Vec::new();
            uri(target, shows, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(b"/a?secret=1", false), "\"/a?***\"");
        assert_eq!(written(b"/a?secret=1", true), "\"/a?secret=1\"");
        assert_eq!(written(b"/a", false), "\"/a\"");
    }
}
