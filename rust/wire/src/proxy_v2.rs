//! PROXY protocol v2 headers (proxy-protocol.txt §2.2), as the relay writes and the enclave reads.
//!
//! Only TCP over IP and LOCAL are accepted. What a header says is the host's word: the enclave shows
//! it and decides nothing by it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// Who connected to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The sender itself: a probe.
    Local,
    /// A TCP connection that the sender accepted.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
}

/// Appends `header` to `out`. Two addresses of different families are both written as IPv6.
pub fn encode(header: &Header, out: &mut Vec<u8>) {
    out.extend_from_slice(&SIGNATURE);
    match header {
        Header::Local => out.extend_from_slice(&[0x20, 0x00, 0, 0]),
        Header::Tcp {
            source,
            destination,
        } => {
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    out.extend_from_slice(&[0x21, 0x11, 0, 12]);
                    out.extend_from_slice(&from.octets());
                    out.extend_from_slice(&to.octets());
                }
                (from, to) => {
                    out.extend_from_slice(&[0x21, 0x21, 0, 36]);
                    out.extend_from_slice(&sixteen(from).octets());
                    out.extend_from_slice(&sixteen(to).octets());
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
    }
}

fn sixteen(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header accepted: the fixed part, two IPv6 addresses, and as many bytes of TLVs, which are
/// passed over.
pub const MAX_HEADER_BYTES: usize = 16 + 36 + 484;

/// Why bytes are not a PROXY v2 header of this profile (proxy-protocol.txt §2.2).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// Neither TCP over IPv4 nor TCP over IPv6.
    #[error("PROXY v2 header is for address family and protocol {0:#04x}, expected TCP over IP")]
    Family(u8),
    /// Not the twelve bytes that begin every v2 header.
    #[error("stream does not begin with a PROXY v2 header")]
    Signature,
    /// Addresses do not fit the length it gives.
    #[error("PROXY v2 header says {length} bytes of addresses, expected {expected} or more")]
    TooShort {
        /// What it says.
        length: usize,
        /// What its family needs.
        expected: usize,
    },
    /// Longer than [`MAX_HEADER_BYTES`].
    #[error("PROXY v2 header is {length} bytes long, the limit is 536")]
    TooLong {
        /// What it says.
        length: usize,
    },
    /// Another version or command.
    #[error("PROXY header has version and command {0:#04x}, expected 0x20 or 0x21")]
    Version(u8),
}

/// What [`parse`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header, and how many bytes it took.
    Complete {
        /// The header.
        header: Header,
        /// Its length, in bytes.
        consumed: usize,
    },
    /// The start of one.
    Incomplete,
}

/// Reads the header at the start of a stream.
///
/// Bytes that cannot become a header are an error at once, before the rest is there.
///
/// # Errors
///
/// In this order: [`ProxyError::Signature`], [`ProxyError::Version`], [`ProxyError::TooLong`],
/// [`ProxyError::Family`], [`ProxyError::TooShort`].
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    if bytes
        .iter()
        .zip(&SIGNATURE)
        .any(|(left, right)| left != right)
    {
        return Err(ProxyError::Signature);
    }
    let Some(command) = bytes.get(12) else {
        return Ok(Parsed::Incomplete);
    };
    if !matches!(command, 0x20 | 0x21) {
        return Err(ProxyError::Version(*command));
    }
    let Some(fixed) = bytes.first_chunk::<16>() else {
        return Ok(Parsed::Incomplete);
    };
    let [.., family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let consumed = length.saturating_add(16);
    if consumed > MAX_HEADER_BYTES {
        return Err(ProxyError::TooLong { length: consumed });
    }
    // LOCAL: the addresses, if any, mean nothing (§2.2).
    let expected = match (*command, family) {
        (0x20, _) => 0,
        (_, 0x11) => 12,
        (_, 0x21) => 36,
        (_, other) => return Err(ProxyError::Family(other)),
    };
    if length < expected {
        return Err(ProxyError::TooShort { length, expected });
    }
    let Some(body) = bytes.get(16..consumed) else {
        return Ok(Parsed::Incomplete);
    };
    let header = match expected {
        12 => tcp(body.first_chunk::<12>().map(addresses::<4, 12>)),
        36 => tcp(body.first_chunk::<36>().map(addresses::<16, 36>)),
        _ => Header::Local,
    };
    Ok(Parsed::Complete { header, consumed })
}

fn tcp<const N: usize>(found: Option<([u8; N], [u8; N], u16, u16)>) -> Header
where
    IpAddr: From<[u8; N]>,
{
    found.map_or(Header::Local, |(from, to, source, destination)| {
        Header::Tcp {
            source: SocketAddr::new(IpAddr::from(from), source),
            destination: SocketAddr::new(IpAddr::from(to), destination),
        }
    })
}

/// Two addresses of `N` bytes and two ports.
fn addresses<const N: usize, const ALL: usize>(body: &[u8; ALL]) -> ([u8; N], [u8; N], u16, u16) {
    let mut bytes = body.iter().copied();
    let mut take = || bytes.next().unwrap_or_default();
    let from = std::array::from_fn(|_| take());
    let to = std::array::from_fn(|_| take());
    let source = u16::from_be_bytes([take(), take()]);
    (from, to, source, u16::from_be_bytes([take(), take()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(v6: bool) -> Header {
        let (source, destination) = if v6 {
            ("[2001:db8::7]:4000", "[::1]:443")
        } else {
            ("192.0.2.7:4000", "127.0.0.1:443")
        };
        Header::Tcp {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn encoded(header: &Header) -> Vec<u8> {
        let mut out = Vec::new();
        encode(header, &mut out);
        out
    }

    #[test]
    fn what_was_written_is_read_at_every_length() {
        for header in [Header::Local, sample(false), sample(true)] {
            let mut bytes = encoded(&header);
            let consumed = bytes.len();
            for short in 0..consumed {
                assert_eq!(parse(&bytes[..short]), Ok(Parsed::Incomplete), "{short}");
            }
            bytes.extend(b"\x16\x03\x01");
            assert_eq!(parse(&bytes), Ok(Parsed::Complete { header, consumed }));
        }
    }

    #[test]
    fn tlvs_are_passed_over_within_the_limit() {
        let mut bytes = encoded(&sample(false));
        bytes[15] += 5;
        bytes.extend([4, 0, 2, 1, 1]);
        let expected = Parsed::Complete {
            header: sample(false),
            consumed: bytes.len(),
        };
        assert_eq!(parse(&bytes), Ok(expected));
        bytes[14] = 0x10;
        assert!(matches!(parse(&bytes), Err(ProxyError::TooLong { .. })));
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        assert_eq!(parse(b"\x16\x03\x01"), Err(ProxyError::Signature));
        assert_eq!(parse(b"PROXY TCP4 1.2.3.4"), Err(ProxyError::Signature));
        let wrong = |at: usize, byte: u8| {
            let mut bytes = encoded(&sample(false));
            bytes[at] = byte;
            parse(&bytes)
        };
        assert_eq!(wrong(12, 0x31), Err(ProxyError::Version(0x31)));
        assert_eq!(wrong(12, 0x22), Err(ProxyError::Version(0x22)));
        assert_eq!(wrong(13, 0x12), Err(ProxyError::Family(0x12)));
        assert_eq!(
            wrong(15, 11),
            Err(ProxyError::TooShort {
                length: 11,
                expected: 12
            })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut long = SIGNATURE.to_vec();
            long.extend(&bytes);
            for input in [&bytes, &long] {
                if let Ok(Parsed::Complete { consumed, .. }) = parse(input) {
                    prop_assert!(consumed <= input.len());
                }
            }
        }
    }
}
