//! PROXY protocol v2 headers, as the relay and others write and the enclave reads.
//!
//! It follows §2.2 of [proxy-protocol.txt], "The PROXY protocol, versions 1 & 2". Version 1 (§2.1) is
//! refused by its name. What a header says is the host's word: the enclave shows it and decides
//! nothing by it. A header that gives no address of IP is accepted, as §2.2 asks for LOCAL and allows
//! for the rest, and the client is then unknown.
//!
//! [proxy-protocol.txt]: https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt

mod crc32c;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// Who connected to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The sender itself: a probe (§2.2, command LOCAL).
    Local,
    /// A TCP connection that the sender accepted.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
    /// A connection that the sender accepted and of which it gives no address, or one that is not
    /// TCP over IP: UDP, or a Unix socket.
    Unspecified,
}

/// Appends `header` to `out`. Two addresses of different families are both written as IPv6.
pub fn encode(header: &Header, out: &mut Vec<u8>) {
    out.extend_from_slice(&SIGNATURE);
    match header {
        Header::Local => out.extend_from_slice(&[LOCAL, UNSPEC, 0, 0]),
        Header::Unspecified => out.extend_from_slice(&[PROXY, UNSPEC, 0, 0]),
        Header::Tcp {
            source,
            destination,
        } => {
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    out.extend_from_slice(&[PROXY, TCP4, 0, 12]);
                    out.extend_from_slice(&from.octets());
                    out.extend_from_slice(&to.octets());
                }
                (from, to) => {
                    out.extend_from_slice(&[PROXY, TCP6, 0, 36]);
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

/// Longest header accepted, in bytes. The length field allows 65 551 (§2.2); two Unix addresses take
/// 232, and TLVs with names, identifiers and a client's certificate (§2.2.6) fit the rest.
pub const MAX_HEADER_BYTES: usize = 4096;
/// What one read at the start of a stream takes: a header of ordinary length with all its TLVs. §2
/// has senders keep it within one segment of 536 bytes, the smallest that IPv4 hosts must take.
pub const ORDINARY_BYTES: usize = 536;

/// Why bytes are not a PROXY v2 header that is accepted.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// The checksum of the header is not the one it carries (§2.2.3).
    #[error("PROXY v2 header has a wrong CRC32C")]
    Checksum,
    /// A family or protocol that §2.2 does not list.
    #[error("PROXY v2 header has address family and protocol {0:#04x}, which does not exist")]
    Family(u8),
    /// Not the twelve bytes that begin every v2 header.
    #[error("stream does not begin with a PROXY v2 header")]
    Signature,
    /// A TLV is longer than what is left of the header (§2.2), or a CRC32C is not 4 bytes.
    #[error("PROXY v2 header has a TLV of type {kind:#04x} that does not fit")]
    Tlv {
        /// Type of the TLV; of one that lacks its length, too.
        kind: u8,
    },
    /// Addresses do not fit the length it gives.
    #[error("PROXY v2 header says {length} bytes of addresses, expected {expected} or more")]
    TooShort {
        /// What it says.
        length: usize,
        /// What its family needs.
        expected: usize,
    },
    /// Longer than [`MAX_HEADER_BYTES`].
    #[error("PROXY v2 header is {length} bytes long, the limit is {MAX_HEADER_BYTES}")]
    TooLong {
        /// What it says.
        length: usize,
    },
    /// Another version or command.
    #[error("PROXY header has version and command {0:#04x}, expected 0x20 or 0x21")]
    Version(u8),
    /// The text form of version 1 (§2.1).
    #[error(
        "stream begins with a PROXY header of version 1, expected version 2 (HAProxy: `send-proxy-v2`)"
    )]
    VersionOne,
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
/// Bytes that cannot become a header are an error at once, before the rest is there; a length over
/// the limit is one before any of it is waited for. TLVs are passed over, but for a CRC32C, which has
/// to be right. With LOCAL and with the family UNSPEC everything behind the fixed part is passed over
/// unread (§2.2).
///
/// # Errors
///
/// In this order: [`ProxyError::VersionOne`], [`ProxyError::Signature`], [`ProxyError::Version`],
/// [`ProxyError::TooLong`], [`ProxyError::Family`], [`ProxyError::TooShort`], [`ProxyError::Tlv`],
/// [`ProxyError::Checksum`].
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let starts = |with: &[u8]| bytes.iter().zip(with).all(|(left, right)| left == right);
    if starts(&VERSION_ONE) && !bytes.is_empty() {
        return if bytes.len() < VERSION_ONE.len() {
            Ok(Parsed::Incomplete)
        } else {
            Err(ProxyError::VersionOne)
        };
    }
    if !starts(&SIGNATURE) {
        return Err(ProxyError::Signature);
    }
    let Some(command) = bytes.get(SIGNATURE.len()) else {
        return Ok(Parsed::Incomplete);
    };
    if !matches!(*command, LOCAL | PROXY) {
        return Err(ProxyError::Version(*command));
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
        return Ok(Parsed::Incomplete);
    };
    let [.., family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let consumed = length.saturating_add(FIXED_BYTES);
    if consumed > MAX_HEADER_BYTES {
        return Err(ProxyError::TooLong { length: consumed });
    }
    let expected = match (*command, family) {
        (LOCAL, _) | (_, UNSPEC) => None,
        (_, TCP4 | UDP4) => Some(12),
        (_, TCP6 | UDP6) => Some(36),
        (_, UNIX_STREAM | UNIX_DATAGRAM) => Some(216),
        (_, other) => return Err(ProxyError::Family(other)),
    };
    if let Some(expected) = expected.filter(|expected| length < *expected) {
        return Err(ProxyError::TooShort { length, expected });
    }
    let (Some(header), Some(body)) = (bytes.get(..consumed), bytes.get(FIXED_BYTES..consumed))
    else {
        return Ok(Parsed::Incomplete);
    };
    if let Some(expected) = expected {
        check_tlvs(header, FIXED_BYTES.saturating_add(expected))?;
    }
    let header = match (*command, family) {
        (LOCAL, _) => Header::Local,
        (_, TCP4) => tcp(body.first_chunk::<12>().map(addresses::<4, 12>)),
        (_, TCP6) => tcp(body.first_chunk::<36>().map(addresses::<16, 36>)),
        _ => Header::Unspecified,
    };
    Ok(Parsed::Complete { header, consumed })
}

/// Looks at the TLVs that begin at `start` (§2.2): whether each fits, and whether the checksum that
/// one of them carries is right.
fn check_tlvs(header: &[u8], start: usize) -> Result<(), ProxyError> {
    let mut at = start;
    while let Some((kind, rest)) = header.get(at..).and_then(<[u8]>::split_first) {
        let misfit = ProxyError::Tlv { kind: *kind };
        let size = rest.first_chunk::<2>().ok_or(misfit)?;
        let value = at.saturating_add(TLV_HEAD_BYTES);
        let end = value.saturating_add(usize::from(u16::from_be_bytes(*size)));
        let found = header.get(value..end).ok_or(misfit)?;
        if *kind == CRC32C {
            let carried = <[u8; 4]>::try_from(found).map_err(|_| misfit)?;
            if crc32c::with_zeros(header, value..end) != u32::from_be_bytes(carried) {
                return Err(ProxyError::Checksum);
            }
        }
        at = end;
    }
    Ok(())
}

fn tcp<const N: usize>(found: Option<([u8; N], [u8; N], u16, u16)>) -> Header
where
    IpAddr: From<[u8; N]>,
{
    found.map_or(Header::Unspecified, |(from, to, source, destination)| {
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

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with (§2.1).
const VERSION_ONE: [u8; 6] = *b"PROXY ";
/// Signature, version and command, family and protocol, length (§2.2).
const FIXED_BYTES: usize = 16;
/// Type and length of a TLV (§2.2).
const TLV_HEAD_BYTES: usize = 3;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const UDP4: u8 = 0x12;
const TCP6: u8 = 0x21;
const UDP6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;
/// `PP2_TYPE_CRC32C` (§2.2.3).
const CRC32C: u8 = 0x03;
