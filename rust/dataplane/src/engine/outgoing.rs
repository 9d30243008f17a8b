//! The request head as the user process gets it: written again from what was parsed.

use cloister_ciphertext::{OpenSession, open_header_value};
use cloister_http::forward::{connection_options, may_forward, write_field};
use cloister_http::{Known, RequestHead, Target};

use super::refusal::Refusal;
use crate::engine::peer::Peer;

/// How the body goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum OutgoingFraming {
    Chunked,
    Length(u64),
    None,
}

/// What is added to a head.
pub(in crate::engine) struct Additions<'a> {
    pub(in crate::engine) context: &'a [u8; 32],
    pub(in crate::engine) peer: Option<&'a Peer>,
    pub(in crate::engine) framing: OutgoingFraming,
    pub(in crate::engine) forward_api_key: bool,
    pub(in crate::engine) is_websocket: bool,
    /// `Host` of a request that has none, as HTTP/1.0 allows: what goes on is HTTP/1.1, which needs one
    /// (RFC 9112 §3.2).
    pub(in crate::engine) host: &'a str,
}

/// What makes a head a handshake: these headers are for one connection, so they are written anew.
pub(in crate::engine) const UPGRADE: &[u8] = b"Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// Longest context id of a client that is kept (data-plane specification §4).
const MAX_CLIENT_CONTEXT: usize = 256;

/// Appends the head to `out`.
///
/// # Errors
///
/// 422 for a header whose whole value is a ciphertext that cannot be opened.
pub(in crate::engine) fn write_head(
    head: &RequestHead,
    bytes: &[u8],
    additions: &Additions<'_>,
    session: &mut OpenSession<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    out.extend_from_slice(head.method.of(bytes));
    out.push(b' ');
    let authority = write_target(head, bytes, out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority {
        write_field(b"Host", authority, out);
    } else if head.fields.first(Known::Host).is_none() {
        write_field(b"Host", additions.host.as_bytes(), out);
    }
    let options = connection_options(&head.fields, bytes);
    for field in head
        .fields
        .iter()
        .filter(|field| may_forward(field, bytes, &options))
    {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        match field.known {
            Known::Host if authority.is_some() => {}
            Known::ApiKey if !additions.forward_api_key => {}
            Known::Context | Known::Forwarded | Known::XForwardedFor | Known::XForwardedProto => {}
            Known::ApiKey => write_field(name, value, out),
            _ => {
                let opened = open_header_value(value, session).map_err(|reason| {
                    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
                    Refusal::new(422, format!("{reason}, in header `{name}`")).kept()
                })?;
                write_field(
                    name,
                    opened.as_ref().map_or(value, |clear| clear.as_slice()),
                    out,
                );
            }
        }
    }
    write_forwarded(head, bytes, additions.peer, out);
    write_context(head, bytes, additions.context, out);
    if additions.is_websocket {
        out.extend_from_slice(UPGRADE);
    }
    match additions.framing {
        OutgoingFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        OutgoingFraming::Length(length) => {
            write_field(
                b"Content-Length",
                itoa::Buffer::new().format(length).as_bytes(),
                out,
            );
        }
        OutgoingFraming::None => {
            if head.fields.first(Known::ContentLength).is_some() {
                out.extend_from_slice(b"Content-Length: 0\r\n");
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Writes path and query; the authority of an absolute target takes the place of `Host`.
fn write_target<'b>(head: &RequestHead, bytes: &'b [u8], out: &mut Vec<u8>) -> Option<&'b [u8]> {
    match head.target {
        Target::Origin(path) => {
            out.extend_from_slice(path.of(bytes));
            None
        }
        Target::Asterisk => {
            out.push(b'*');
            None
        }
        Target::Absolute { authority, path } => {
            let path = path.of(bytes);
            if path.first() != Some(&b'/') {
                out.push(b'/');
            }
            out.extend_from_slice(path);
            Some(authority.of(bytes))
        }
    }
}

/// `X-Forwarded-For`, `X-Forwarded-Proto` and `Forwarded` (RFC 7239): the client's own values stay
/// to the left of the host's word.
fn write_forwarded(head: &RequestHead, bytes: &[u8], peer: Option<&Peer>, out: &mut Vec<u8>) {
    let mut list = |name: &[u8], known: Known, ours: Option<&str>| {
        let earlier = head.fields.iter().filter(|field| field.known == known);
        let values = earlier
            .map(|field| field.value.of(bytes))
            .chain(ours.map(str::as_bytes));
        let mut is_first = true;
        for value in values.filter(|value| !value.is_empty()) {
            out.extend_from_slice(if is_first { name } else { b", " });
            out.extend_from_slice(value);
            is_first = false;
        }
        if !is_first {
            out.extend_from_slice(b"\r\n");
        }
    };
    let ip = peer.map(|peer| peer.ip.as_str());
    let forwarded = peer.map(|peer| peer.forwarded.as_str());
    list(b"X-Forwarded-For: ", Known::XForwardedFor, ip);
    list(
        b"X-Forwarded-Proto: ",
        Known::XForwardedProto,
        Some("https"),
    );
    list(b"Forwarded: ", Known::Forwarded, forwarded);
}

/// Ours, behind the client's when that is short and plain.
fn write_context(head: &RequestHead, bytes: &[u8], context: &[u8; 32], out: &mut Vec<u8>) {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b';' | b'_' | b'-');
    let client = head
        .fields
        .first(Known::Context)
        .map(|field| field.value.of(bytes));
    let client = client
        .filter(|value| (1..=MAX_CLIENT_CONTEXT).contains(&value.len()) && value.iter().all(plain));
    match client {
        None => write_field(b"x-evervault-ctx", context, out),
        Some(client) => write_field(b"x-evervault-ctx", &[client, context].join(&b';'), out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_ciphertext::{Keyring, OpenPolicy};
    use cloister_http::{HeadLimits, HeadSearch};

    fn forwarded(
        text: &str,
        peer: Option<&str>,
        framing: OutgoingFraming,
    ) -> Result<String, Refusal> {
        let mut head = RequestHead::default();
        let whole = head.parse(
            text.as_bytes(),
            &HeadLimits::default(),
            &mut HeadSearch::default(),
        );
        assert_eq!(whole, Ok(true));
        let keyring = Keyring::default();
        let policy = OpenPolicy {
            dangerous_accept_debug: false,
            distinct_keys: 10,
        };
        let mut session = OpenSession::new(&keyring, policy);
        let peer = peer.map(|peer| Peer::new(peer.parse().unwrap()));
        let additions = Additions {
            context: &[b'C'; 32],
            peer: peer.as_ref(),
            framing,
            forward_api_key: false,
            is_websocket: false,
            host: "127.0.0.1:8008",
        };
        let mut out = Vec::new();
        write_head(&head, text.as_bytes(), &additions, &mut session, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_head_is_written_again() {
        let text = "POST /a?b HTTP/1.1\r\nhost: h\r\nAPI-Key: secret\r\nContent-Length: 9\r\n\
            X-Forwarded-For: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\nx-evervault-ctx: mine\r\n\
            Connection: keep-alive\r\nX-A: 1\r\n\r\n";
        let made = forwarded(text, Some("192.0.2.1:5"), OutgoingFraming::Length(7)).unwrap();
        assert_eq!(
            made,
            format!(
                "POST /a?b HTTP/1.1\r\nhost: h\r\nX-A: 1\r\n\
                 X-Forwarded-For: 10.0.0.1, 10.0.0.2, 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
                 Forwarded: for=192.0.2.1;proto=https\r\nx-evervault-ctx: mine;{}\r\n\
                 Content-Length: 7\r\n\r\n",
                "C".repeat(32)
            )
        );
    }

    #[test]
    fn an_ipv6_address_is_quoted_and_a_mapped_one_is_ipv4() {
        let text = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
        let made = forwarded(text, Some("[2001:db8::1]:5"), OutgoingFraming::None).unwrap();
        assert!(
            made.contains("Forwarded: for=\"[2001:db8::1]\";proto=https\r\n"),
            "{made}"
        );
        let made = forwarded(text, Some("[::ffff:192.0.2.1]:5"), OutgoingFraming::None).unwrap();
        assert!(made.contains("X-Forwarded-For: 192.0.2.1\r\n"), "{made}");
    }

    #[test]
    fn a_request_without_a_host_is_given_the_one_of_the_user_process() {
        let out = forwarded(
            "GET / HTTP/1.0\r\nA: b\r\n\r\n",
            None,
            OutgoingFraming::None,
        )
        .unwrap();
        assert!(
            out.starts_with("GET / HTTP/1.1\r\nHost: 127.0.0.1:8008\r\nA: b\r\n"),
            "{out}"
        );
        let text = "GET / HTTP/1.0\r\nHost: h\r\n\r\n";
        let out = forwarded(text, None, OutgoingFraming::None).unwrap();
        assert_eq!(out.matches("Host:").count(), 1, "{out}");
    }

    #[test]
    fn the_authority_of_an_absolute_target_is_the_host() {
        let text = "GET http://real:1?q HTTP/1.1\r\nhost: other\r\n\r\n";
        let made = forwarded(text, None, OutgoingFraming::None).unwrap();
        assert!(
            made.starts_with("GET /?q HTTP/1.1\r\nHost: real:1\r\n"),
            "{made}"
        );
        assert!(!made.contains("other"));
    }

    #[test]
    fn a_context_of_a_client_that_is_not_plain_is_dropped() {
        let text = "GET / HTTP/1.1\r\nhost: h\r\nx-evervault-ctx: a b\r\n\r\n";
        let made = forwarded(text, None, OutgoingFraming::None).unwrap();
        assert!(
            made.contains(&format!("x-evervault-ctx: {}\r\n", "C".repeat(32))),
            "{made}"
        );
    }

    #[test]
    fn a_header_that_cannot_be_opened_is_422_with_its_name() {
        let token = "ev:QkTC:AAECAwQFBgcICQoL:A9Zak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzz:ye0W7ZzhtSI6hgogEw1itJ:$";
        let text = format!("GET / HTTP/1.1\r\nhost: h\r\nX-Card: {token}\r\n\r\n");
        let refusal = forwarded(&text, None, OutgoingFraming::None).unwrap_err();
        assert_eq!(refusal.status, 422);
        let text = "GET / HTTP/1.1\r\nhost: h\r\nX-Card: ev:123\r\n\r\n";
        assert!(
            forwarded(text, None, OutgoingFraming::None)
                .unwrap()
                .contains("X-Card: ev:123")
        );
    }
}
