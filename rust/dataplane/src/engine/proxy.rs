//! The PROXY v2 header that every stream of the host begins with.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use cloister_wire::proxy_v2::{self, Header, ORDINARY_BYTES, Parsed, ProxyError};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::counters::{Counters, add};

/// A header, and what was read behind it.
#[derive(Debug)]
pub(super) struct Introduction {
    header: Header,
    bytes: Vec<u8>,
    header_bytes: usize,
}

impl Introduction {
    /// Reads the header; a stream that does not begin with one is an error.
    pub(super) async fn read<R>(stream: &mut R, counters: &Counters) -> io::Result<Self>
    where
        R: AsyncRead + Unpin,
    {
        let mut bytes = Vec::with_capacity(ORDINARY_BYTES);
        loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match proxy_v2::parse(&bytes) {
                Ok(Parsed::Incomplete) => {}
                Ok(Parsed::Complete { header, consumed }) => {
                    return Ok(Self {
                        header,
                        bytes,
                        header_bytes: consumed,
                    });
                }
                Err(error) => {
                    report(error, counters);
                    return Err(io::Error::other(error));
                }
            }
        }
    }

    /// Who connected, when the header says it.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self.header {
            Header::Tcp { source, .. } => Some(source),
            Header::Local | Header::Unspecified => None,
        }
    }

    /// What was read behind the header.
    pub(super) fn rest(mut self) -> Vec<u8> {
        self.bytes.split_off(self.header_bytes)
    }

    /// The header as it came, with what was read behind it, and how long that is.
    pub(super) fn whole(self) -> (Vec<u8>, usize) {
        let behind = self.bytes.len().saturating_sub(self.header_bytes);
        (self.bytes, behind)
    }
}

/// The host link is set up wrong when this happens: it is said once, and counted after that.
fn report(error: ProxyError, counters: &Counters) {
    add(&counters.refused_headers, 1);
    if counters.refused_headers.load(Ordering::Relaxed) == 1 {
        tracing::warn!(%error, "a connection was closed; more of them are only counted");
    }
}
