//! Transaction logs (data-plane specification §4): one record a request, WebSocket session or TCP
//! session, values masked.
//!
//! A record is written once, as the JSON it is sent as: it costs one allocation.

mod session;
mod text;

use std::time::Duration;

use cloister_http::{Field, Fields, Known, RequestHead, ResponseHead};
use cloister_wire::config::{EnclaveConfig, Logs};

use super::outcome::Totals;
use crate::engine::peer::Peer;
use crate::engine::site::Site;
use crate::live::ApiKeyId;
use crate::log_ring::LogSink;
pub(in crate::engine) use session::SessionEntry;

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

    /// As [`Self::shows`], without a look at the name of a header that was recognized already.
    fn shows_field(&self, field: &Field, name: &[u8]) -> bool {
        match field.known {
            Known::ApiKey => false,
            Known::Connection
            | Known::ContentEncoding
            | Known::ContentLength
            | Known::ContentType
            | Known::Context
            | Known::Expect
            | Known::Host
            | Known::Trailer
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::UserAgent => true,
            _ => self.shows(name),
        }
    }

    /// Whether values of this header are shown.
    fn shows(&self, name: &[u8]) -> bool {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if NEVER.iter().any(|never| is(never)) {
            return false;
        }
        let starts = |prefix: &String| {
            let start = name.get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        is_standard(name)
            || self.exact.iter().any(|trusted| is(trusted))
            || self.prefixes.iter().any(starts)
    }

    /// Appends a JSON object of all headers; the shown values of one name are joined.
    fn headers(&self, fields: &Fields, head: &[u8], out: &mut Vec<u8>) {
        out.push(b'{');
        for (position, field) in fields.iter().enumerate() {
            let name = field.name.of(head);
            let is_same = |other: &&Field| other.name.of(head).eq_ignore_ascii_case(name);
            if fields.iter().take(position).any(|other| is_same(&other)) {
                continue;
            }
            if position > 0 {
                out.push(b',');
            }
            out.push(b'"');
            text::write_name(name, out);
            out.extend_from_slice(b"\":\"");
            if self.shows_field(field, name) {
                let start = out.len();
                for same in fields.iter().skip(position).filter(is_same) {
                    if out.len() > start {
                        out.extend_from_slice(b", ");
                    }
                    if out.len().saturating_sub(start) < text::MAX_BYTES {
                        text::write_inside(same.value.of(head), out);
                    }
                }
            } else {
                out.extend_from_slice(b"***");
            }
            out.push(b'"');
        }
        out.push(b'}');
    }
}

/// Whether a name is one of [`SHOWN`]. Most of them differ in length, which is compared first.
fn is_standard(name: &[u8]) -> bool {
    SHOWN
        .iter()
        .any(|shown| name.eq_ignore_ascii_case(shown.as_bytes()))
}

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
        member("requestMethod", &mut out);
        text::write(head.method.of(bytes), &mut out);
        member("uri", &mut out);
        uri(
            head.raw_target.of(bytes),
            site.config.logs.trx_log_query,
            &mut out,
        );
        member("remoteIp", &mut out);
        optional(peer.map(|peer| peer.ip.as_bytes()), &mut out);
        let first = |known| head.fields.first(known).map(|field| field.value.of(bytes));
        member("userAgent", &mut out);
        optional(first(Known::UserAgent), &mut out);
        member("contentType", &mut out);
        optional(first(Known::ContentType), &mut out);
        member("requestHeaders", &mut out);
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
        member("responseContentType", out);
        optional(content_type.map(|field| field.value.of(bytes)), out);
        member("responseHeaders", out);
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
        member("requestType", out);
        out.extend_from_slice(if self.is_websocket {
            br#""Websocket""#
        } else {
            br#""HTTP""#
        });
        member("apiKeyId", out);
        optional(
            self.api_key_id.as_ref().map(|id| id.as_str().as_bytes()),
            out,
        );
        member("statusGroup", out);
        out.push(b'"');
        number(u64::from(totals.status / 100), out);
        out.extend_from_slice(b"XX\"");
        self::elapsed(elapsed, out);
        for (name, value) in [
            ("responseCode", u64::from(totals.status)),
            ("bytesIn", totals.bytes_in),
            ("bytesOut", totals.bytes_out),
            ("nDecryptedFields", totals.fields_opened),
        ] {
            member(name, out);
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
    member("elapsed", out);
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

    fn mask(trusted: &[&str]) -> Mask {
        let trusted_headers = trusted.iter().map(|name| (*name).to_owned()).collect();
        Mask::new(&Logs {
            trx_logging: true,
            trx_log_query: false,
            trusted_headers,
        })
    }

    /// Headers that are recognized take a way of their own; it must lead to the same answer.
    #[test]
    fn a_recognized_header_is_shown_as_its_name_says() {
        let names = SHOWN.iter().chain(&NEVER).copied();
        let more = [
            "keep-alive",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-mine",
        ];
        let more = more
            .into_iter()
            .chain(["proxy-connection", "proxy-authenticate", "x-other"]);
        let mask = mask(&["x-mine", "api-key", "x-forwarded-*"]);
        for name in names.chain(more) {
            let value = match name {
                "content-length" => "1",
                "transfer-encoding" => "chunked",
                "expect" => "100-continue",
                _ => "v",
            };
            let host = if name == "host" { "" } else { "host: h\r\n" };
            let text = format!("POST / HTTP/1.1\r\n{host}{name}: {value}\r\n\r\n");
            let mut head = RequestHead::default();
            let limits = cloister_http::HeadLimits::default();
            let search = &mut cloister_http::HeadSearch::default();
            assert_eq!(
                head.parse(text.as_bytes(), &limits, search),
                Ok(true),
                "{name}"
            );
            let field = head.fields.iter().last().unwrap();
            assert_eq!(
                mask.shows_field(field, name.as_bytes()),
                mask.shows(name.as_bytes()),
                "{name}"
            );
        }
    }

    #[test]
    fn t20_a_secret_header_is_not_shown_even_when_it_is_trusted() {
        let mask = mask(&["API-Key", "cookie", "X-Mine", "x-request-*", "auth*"]);
        for name in NEVER {
            assert!(!mask.shows(name.as_bytes()), "{name}");
        }
        assert!(
            mask.shows(b"x-mine") && mask.shows(b"x-request-id") && mask.shows(b"content-type")
        );
        assert!(!mask.shows(b"x-other") && !mask.shows(b"x-requested"));
    }

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

    #[test]
    fn headers_of_one_name_are_one_member() {
        let text = b"GET / HTTP/1.1\r\nHost: h\r\nX-Mine: a\r\nCookie: c\r\nx-mine: b\xFF\r\ncookie: d\r\n\r\n";
        let mut head = RequestHead::default();
        let limits = cloister_http::HeadLimits::default();
        head.parse(text, &limits, &mut cloister_http::HeadSearch::default())
            .unwrap();
        let mut out = Vec::new();
        mask(&["x-mine"]).headers(&head.fields, text, &mut out);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let expected =
            serde_json::json!({ "host": "h", "x-mine": "a, b\u{fffd}", "cookie": "***" });
        assert_eq!(json, expected);
    }
}
