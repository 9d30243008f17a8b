//! Where a listener listens and a connection goes, as text and as a type.
//!
//! The text is `tcp:HOST:PORT`, `unix:PATH` or `vsock:CID:PORT`. Parsing opens nothing and resolves
//! no name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Longest path of a Unix socket, in bytes (unix(7): `sun_path` has 108, one is the final zero).
pub const MAX_UNIX_PATH_BYTES: usize = 107;
/// The CID that means "any" in a listener (`VMADDR_CID_ANY`, vsock(7)); written `any`.
pub const VSOCK_CID_ANY: u32 = u32::MAX;

/// An address of one of the three kinds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or IP address and a port; port 0 of a listener means "any free one".
    Tcp {
        /// Name, IPv4 or IPv6 address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix stream socket.
    Unix(PathBuf),
    /// A vsock port.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
}

/// Why a text is not an [`Address`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// `tcp:` without `HOST:PORT`.
    #[error("expected tcp:HOST:PORT, an IPv6 host in brackets")]
    Tcp,
    /// `unix:` without a path that fits.
    #[error("expected unix:PATH, the path at most {MAX_UNIX_PATH_BYTES} bytes long")]
    Unix,
    /// Another kind.
    #[error("expected tcp:HOST:PORT, unix:PATH or vsock:CID:PORT")]
    UnknownKind,
    /// `vsock:` without `CID:PORT`.
    #[error("expected vsock:CID:PORT, both whole numbers, or `any` as CID")]
    Vsock,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once(':') {
            Some(("tcp", rest)) => tcp(rest).ok_or(AddressError::Tcp),
            Some(("unix", path)) => unix(path).ok_or(AddressError::Unix),
            Some(("vsock", rest)) => vsock(rest).ok_or(AddressError::Vsock),
            _ => Err(AddressError::UnknownKind),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => {
                write!(formatter, "tcp:[{host}]:{port}")
            }
            Self::Tcp { host, port } => write!(formatter, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Vsock {
                cid: VSOCK_CID_ANY,
                port,
            } => write!(formatter, "vsock:any:{port}"),
            Self::Vsock { cid, port } => write!(formatter, "vsock:{cid}:{port}"),
        }
    }
}

fn tcp(rest: &str) -> Option<Address> {
    let (host, port) = rest.rsplit_once(':')?;
    let port = decimal(port)?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => {
            let inner = bracketed.strip_suffix(']')?;
            inner.parse::<std::net::Ipv6Addr>().ok()?;
            inner
        }
        None if host.contains(':') => return None,
        None => host,
    };
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if host.is_empty() || !host.bytes().all(is_plain) {
        return None;
    }
    Some(Address::Tcp {
        host: host.to_owned(),
        port,
    })
}

fn unix(path: &str) -> Option<Address> {
    let fits = !path.is_empty() && path.len() <= MAX_UNIX_PATH_BYTES && !path.contains('\0');
    fits.then(|| Address::Unix(PathBuf::from(path)))
}

fn vsock(rest: &str) -> Option<Address> {
    let (cid, port) = rest.split_once(':')?;
    let cid = if cid == "any" {
        VSOCK_CID_ANY
    } else {
        decimal(cid)?
    };
    Some(Address::Vsock {
        cid,
        port: decimal(port)?,
    })
}

/// A number of digits only: `u16::from_str` alone takes a sign.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(())?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is printed as the bound address is what a second command is given.
    #[test]
    fn what_is_displayed_parses_to_the_same_address() {
        for text in [
            "tcp:127.0.0.1:443",
            "tcp:[::1]:0",
            "tcp:enclave.example:65535",
            "unix:/run/cloister/enclave-7777.sock",
            "unix:relative:with:colons",
            "vsock:16:7777",
            "vsock:any:7776",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused_and_told_what_was_expected() {
        for (text, error) in [
            ("", AddressError::UnknownKind),
            ("443", AddressError::UnknownKind),
            ("http://localhost", AddressError::UnknownKind),
            ("TCP:localhost:1", AddressError::UnknownKind),
            ("tcp:", AddressError::Tcp),
            ("tcp::443", AddressError::Tcp),
            ("tcp:localhost", AddressError::Tcp),
            ("tcp:localhost:", AddressError::Tcp),
            ("tcp:localhost:+1", AddressError::Tcp),
            ("tcp:localhost:65536", AddressError::Tcp),
            ("tcp:::1:443", AddressError::Tcp),
            ("tcp:[::1:443", AddressError::Tcp),
            ("tcp:[localhost]:443", AddressError::Tcp),
            ("tcp://localhost:443", AddressError::Tcp),
            ("tcp:local host:443", AddressError::Tcp),
            ("unix:", AddressError::Unix),
            ("vsock:16", AddressError::Vsock),
            ("vsock:x:1", AddressError::Vsock),
            ("vsock:1:4294967296", AddressError::Vsock),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
        let longest = format!("unix:{}", "p".repeat(MAX_UNIX_PATH_BYTES));
        longest.parse::<Address>().unwrap();
        assert_eq!(
            format!("{longest}p").parse::<Address>(),
            Err(AddressError::Unix)
        );
    }
}
