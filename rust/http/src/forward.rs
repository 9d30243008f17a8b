//! What goes on, written again from what was parsed.

use crate::fields::{Field, Fields, Known};

/// Whether a header line may be forwarded at all: not hop-by-hop, not named by `Connection`, not a
/// framing header (those are written anew).
///
/// `connection_options` comes from [`connection_options`].
pub fn may_forward(field: &Field, head: &[u8], connection_options: &[&[u8]]) -> bool {
    match field.known {
        Known::Connection
        | Known::HopByHop
        | Known::ContentLength
        | Known::TransferEncoding
        | Known::Upgrade
        | Known::Expect => false,
        // RFC 9110 §7.6.1 lets a sender name any header; routing and authentication are not its to
        // remove.
        Known::Host | Known::ApiKey | Known::Context => true,
        _ if connection_options.is_empty() => true,
        _ => {
            let name = field.name.of(head);
            !connection_options
                .iter()
                .any(|option| option.eq_ignore_ascii_case(name))
        }
    }
}

/// Whether a trailer line may be forwarded, where whoever receives it may merge it into the headers:
/// none that frames, routes, authenticates, or says how a message is to be handled or read (RFC 9110
/// §6.5.1).
pub fn may_forward_trailer(name: &[u8]) -> bool {
    Known::of(name) == Known::Other
        && !NOT_IN_TRAILERS
            .iter()
            .any(|refused| refused.eq_ignore_ascii_case(name))
}

/// What [`Known`] does not know of that cannot be trusted behind a body.
const NOT_IN_TRAILERS: &[&[u8]] = &[
    b"age",
    b"authorization",
    b"cache-control",
    b"content-range",
    b"cookie",
    b"date",
    b"expires",
    b"location",
    b"max-forwards",
    b"pragma",
    b"range",
    b"retry-after",
    b"set-cookie",
    b"vary",
    b"www-authenticate",
];

/// The names that `Connection` lists besides `close` and `keep-alive`.
pub fn connection_options<'h>(fields: &Fields, head: &'h [u8]) -> Vec<&'h [u8]> {
    let lines = fields
        .iter()
        .filter(|field| field.known == Known::Connection);
    lines
        .flat_map(|field| field.value.of(head).split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| {
            !option.is_empty()
                && !option.eq_ignore_ascii_case(b"close")
                && !option.eq_ignore_ascii_case(b"keep-alive")
        })
        .collect()
}

/// Appends one header line.
pub fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::HeadSearch;
    use crate::{HeadLimits, RequestHead};

    #[test]
    fn what_is_for_this_connection_only_stays_here() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine, api-key, host\r\n\
            Keep-Alive: 1\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Authorization: b\r\nx-mine: 1\r\n\
            api-key: k\r\nContent-Length: 0\r\nX-Other: \xE9\r\nX-Other: 2\r\n\r\n";
        let mut head = RequestHead::default();
        let search = &mut HeadSearch::default();
        assert!(head.parse(text, &HeadLimits::default(), search).unwrap());
        let options = connection_options(&head.fields, text);
        let mut out = Vec::new();
        for field in head
            .fields
            .iter()
            .filter(|field| may_forward(field, text, &options))
        {
            write_field(field.name.of(text), field.value.of(text), &mut out);
        }
        assert_eq!(
            out,
            b"Host: a\r\napi-key: k\r\nX-Other: \xE9\r\nX-Other: 2\r\n"
        );
    }
}
