//! Transaction logs (data-plane specification §4): one record a request, values masked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cloister_http::{Fields, Known, RequestHead, ResponseHead};
use cloister_wire::config::Logs;
use cloister_wire::logs::TransactionLog;

use super::exchange::Totals;
use crate::engine::site::Site;

/// Longest value, path or name that is written, in bytes.
const MAX_VALUE_BYTES: usize = 1024;

/// Standard names whose values say nothing of a person or a secret.
const SHOWN: [&str; 34] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "access-control-allow-origin",
    "age",
    "allow",
    "cache-control",
    "connection",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "last-modified",
    "range",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "x-evervault-ctx",
];

/// Names whose values are never shown, even when they are listed as trusted.
const NEVER: [&str; 5] = [
    "api-key",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
];

/// Which header values are shown.
#[derive(Debug)]
pub(in crate::engine) struct Mask {
    exact: Vec<String>,
    prefixes: Vec<String>,
}

impl Mask {
    pub(in crate::engine) fn new(logs: &Logs) -> Self {
        let lower = logs
            .trusted_headers
            .iter()
            .map(|name| name.to_ascii_lowercase());
        let (prefixes, exact): (Vec<_>, Vec<_>) = lower.partition(|name| name.ends_with('*'));
        let strip = |name: String| name.trim_end_matches('*').to_owned();
        Self {
            exact,
            prefixes: prefixes.into_iter().map(strip).collect(),
        }
    }

    /// Whether values of this header are shown; `name` is lower case.
    fn shows(&self, name: &str) -> bool {
        if NEVER.contains(&name) {
            return false;
        }
        SHOWN.binary_search(&name).is_ok()
            || self.exact.iter().any(|trusted| trusted == name)
            || self
                .prefixes
                .iter()
                .any(|prefix| name.starts_with(prefix.as_str()))
    }

    fn headers(&self, fields: &Fields, bytes: &[u8]) -> BTreeMap<String, String> {
        let mut shown: BTreeMap<String, String> = BTreeMap::new();
        for field in fields.iter() {
            let mut name = text(field.name.of(bytes));
            name.make_ascii_lowercase();
            let value = if self.shows(&name) {
                text(field.value.of(bytes))
            } else {
                "***".to_owned()
            };
            shown
                .entry(name)
                .and_modify(|earlier| {
                    if earlier.len() < MAX_VALUE_BYTES && value != "***" {
                        earlier.push_str(", ");
                        earlier.push_str(&value);
                    }
                })
                .or_insert(value);
        }
        shown
    }
}

/// A record that is being made.
#[derive(Debug)]
pub(super) struct Entry {
    log: TransactionLog,
}

impl Entry {
    /// What is known when the head is there.
    pub(super) fn begin(
        site: &Site,
        head: &RequestHead,
        bytes: &[u8],
        context: &[u8; 32],
        peer: Option<SocketAddr>,
    ) -> Self {
        let first = |known| {
            head.fields
                .first(known)
                .map(|field| text(field.value.of(bytes)))
        };
        let config = &site.config;
        Self {
            log: TransactionLog {
                sequence: 0,
                txid: text(context),
                ts: site.clock.now_ms(),
                kind: "enclave".to_owned(),
                request_type: "HTTP".to_owned(),
                request_method: text(head.method.of(bytes)),
                uri: uri(head.raw_target.of(bytes), config.logs.trx_log_query),
                remote_ip: peer.map(|peer| peer.ip().to_string()),
                user_agent: first(Known::UserAgent),
                request_headers: site.mask.headers(&head.fields, bytes),
                response_headers: BTreeMap::new(),
                response_code: 0,
                status_group: String::new(),
                content_type: first(Known::ContentType),
                response_content_type: None,
                elapsed: 0.0,
                bytes_in: 0,
                bytes_out: 0,
                n_decrypted_fields: 0,
                resource_name: config.name.clone(),
                resource_uuid: config.uuid.to_string(),
                app_uuid: config.app_uuid.to_string(),
                team_uuid: config.team_uuid.to_string(),
                api_key_id: None,
            },
        }
    }

    /// Which API key let the request in.
    pub(super) fn authenticated(&mut self, id: &str) {
        self.log.api_key_id = Some(id.to_owned());
    }

    /// The response head of the user process.
    pub(super) fn answered(&mut self, site: &Site, head: &ResponseHead, bytes: &[u8]) {
        let content_type = head.fields.first(Known::ContentType);
        self.log.response_content_type = content_type.map(|field| text(field.value.of(bytes)));
        self.log.response_headers = site.mask.headers(&head.fields, bytes);
    }

    /// The data plane's own answer.
    pub(super) fn answered_here(&mut self, _status: u16) {
        self.log.response_content_type = Some("application/json".to_owned());
        self.log.response_headers.clear();
    }

    /// The finished record. A status of 0 says that the client had no answer.
    pub(super) fn end(mut self, totals: &Totals, elapsed: Duration) -> TransactionLog {
        let log = &mut self.log;
        log.response_code = totals.status;
        log.status_group = format!("{}XX", totals.status / 100);
        log.elapsed = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
        log.bytes_in = totals.bytes_in;
        log.bytes_out = totals.bytes_out;
        log.n_decrypted_fields = totals.fields_opened;
        self.log
    }
}

/// A target, with its query masked unless the configuration shows it.
fn uri(target: &[u8], shows_query: bool) -> String {
    let cut = target
        .iter()
        .position(|byte| *byte == b'?')
        .filter(|_| !shows_query);
    match cut {
        None => text(target),
        Some(at) => text(target.get(..at).unwrap_or_default()) + "?***",
    }
}

/// Text of a peer for a JSON record: bounded, and UTF-8 by replacement. JSON escapes the rest.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(
        bytes
            .get(..bytes.len().min(MAX_VALUE_BYTES))
            .unwrap_or_default(),
    )
    .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(trusted: &[&str]) -> Mask {
        let trusted_headers = trusted.iter().map(|name| (*name).to_owned()).collect();
        Mask::new(&Logs {
            trx_logging: true,
            trx_log_query: false,
            trusted_headers,
        })
    }

    #[test]
    fn the_list_of_shown_names_is_sorted_for_its_search() {
        assert!(SHOWN.is_sorted());
    }

    #[test]
    fn t20_a_secret_header_is_not_shown_even_when_it_is_trusted() {
        let mask = mask(&["API-Key", "cookie", "X-Mine", "x-request-*", "auth*"]);
        for name in NEVER {
            assert!(!mask.shows(name), "{name}");
        }
        assert!(mask.shows("x-mine") && mask.shows("x-request-id") && mask.shows("content-type"));
        assert!(!mask.shows("x-other") && !mask.shows("x-requested"));
    }

    #[test]
    fn a_query_is_masked_unless_it_is_asked_for() {
        assert_eq!(uri(b"/a?secret=1", false), "/a?***");
        assert_eq!(uri(b"/a?secret=1", true), "/a?secret=1");
        assert_eq!(uri(b"/a", false), "/a");
    }
}
