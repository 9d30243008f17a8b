//! Which header values a record shows, and how headers are written.
//!
//! A value is shown when its name is a standard one that says nothing of a person or a secret, or is
//! trusted by the configuration; some names are never shown. Nothing here looks at values.

use cloister_http::{Field, Fields, Known};
use cloister_wire::config::Logs;

use super::text;

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
    pub(super) fn headers(&self, fields: &Fields, head: &[u8], out: &mut Vec<u8>) {
        out.push(b'{');
        for (position, field) in fields.iter().enumerate() {
            let name = field.name.of(head);
            // Most headers differ in what they are known as, which is compared first.
            let is_same = |other: &&Field| {
                other.known == field.known && other.name.of(head).eq_ignore_ascii_case(name)
            };
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
                text::write_inside(field.value.of(head), out);
                let behind = fields.iter().skip(position.saturating_add(1));
                for same in behind.filter(is_same) {
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

/// Whether a name is one of [`SHOWN`].
fn is_standard(name: &[u8]) -> bool {
    let names = SHOWN.get(name.len()).copied().unwrap_or_default();
    names
        .iter()
        .any(|shown| name.eq_ignore_ascii_case(shown.as_bytes()))
}

/// Standard names whose values say nothing of a person or a secret, by their length.
const SHOWN: [&[&str]; 28] = [
    &[],
    &[],
    &["te"],
    &["age"],
    &["date", "etag", "host", "vary"],
    &["allow", "range"],
    &["accept", "expect", "server"],
    &["expires", "trailer", "upgrade"],
    &["if-match"],
    &[],
    &["connection", "user-agent"],
    &["retry-after"],
    &["content-type"],
    &[
        "accept-ranges",
        "cache-control",
        "content-range",
        "if-none-match",
        "last-modified",
    ],
    &["content-length"],
    &["accept-encoding", "accept-language", "x-evervault-ctx"],
    &["content-encoding", "content-language"],
    &["if-modified-since", "transfer-encoding"],
    &[],
    &["content-disposition"],
    &[],
    &[],
    &[],
    &[],
    &[],
    &[],
    &[],
    &["access-control-allow-origin"],
];

/// Names whose values are never shown, even when they are listed as trusted.
const NEVER: [&str; 5] = [
    "api-key",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
];

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_http::RequestHead;

    fn mask(trusted: &[&str]) -> Mask {
        let trusted_headers = trusted.iter().map(|name| (*name).to_owned()).collect();
        Mask::new(&Logs {
            trx_logging: true,
            trx_log_query: false,
            trusted_headers,
        })
    }

    /// A name in the list of another length would never be found.
    #[test]
    fn a_shown_name_stands_where_its_length_says() {
        assert_eq!(SHOWN.iter().map(|names| names.len()).sum::<usize>(), 34);
        for (length, names) in SHOWN.iter().enumerate() {
            assert!(names.iter().all(|name| name.len() == length), "{names:?}");
        }
    }

    /// Headers that are recognized take a way of their own; it must lead to the same answer.
    #[test]
    fn a_recognized_header_is_shown_as_its_name_says() {
        let names = SHOWN.iter().copied().flatten().chain(&NEVER).copied();
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
