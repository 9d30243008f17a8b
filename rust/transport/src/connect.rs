//! Connecting, with a deadline.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{sleep, timeout};

use crate::address::Address;
use crate::stream::Stream;
use crate::vsock::VsockStream;

/// Connects to `address` within `limit`, name resolution included.
///
/// The addresses of a name are tried in the order the resolver gives them.
///
/// # Errors
///
/// - [`io::ErrorKind::TimedOut`]: not connected within `limit`.
/// - The system's own, of the last address tried.
pub async fn connect(address: &Address, limit: Duration) -> io::Result<Stream> {
    match timeout(limit, connect_unbounded(address)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("not connected within {limit:?}"),
        )),
    }
}

async fn connect_unbounded(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Tcp { host, port } => tcp(host, *port).await,
        Address::Unix(path) => unix(path).await,
        Address::Vsock { cid, port } => Ok(Stream::Vsock(VsockStream::connect(*cid, *port).await?)),
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<Stream> {
    // A literal address needs no resolver thread.
    if let Ok(ip) = host.parse() {
        return tcp_to(SocketAddr::new(ip, port)).await;
    }
    let mut last = None;
    for candidate in lookup_host((host, port)).await? {
        match tcp_to(candidate).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

async fn tcp_to(address: SocketAddr) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Stream::Tcp(stream))
}

/// A Unix socket whose backlog is full answers `EAGAIN` at once and offers nothing to wait for
/// (connect(2)), so this asks again until the caller's deadline.
async fn unix(path: &Path) -> io::Result<Stream> {
    let mut pause = FIRST_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(Stream::Unix(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);
