//! Listening, on any kind of address.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, acceptfrom_with};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::consume_budget;
use tokio::time::sleep;

use crate::address::Address;
use crate::readiness::register;
use crate::stream::{Detached, Stream};

/// Length of the queue of connections not accepted yet; the kernel cuts it to `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// A socket that listens and belongs to no runtime yet.
///
/// Connections wait in its queue from now on. Dropping it, or the [`Listener`] made of it, closes it
/// and removes the file of a Unix socket.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: Address,
    file: Option<SocketFile>,
}

/// A socket that listens on a runtime.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<Socket>,
    address: Address,
    /// Where connections arrive, when it is one address and not all of the machine's.
    local: Option<SocketAddr>,
    _file: Option<SocketFile>,
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted<S = Stream> {
    /// The connection.
    pub stream: S,
    /// The peer, TCP only. An IPv4 peer of an IPv6 listener is given as IPv4.
    pub peer: Option<SocketAddr>,
    /// Where it arrived, TCP only.
    pub local: Option<SocketAddr>,
}

impl Bound {
    /// Binds and listens.
    ///
    /// A host name is resolved here, on the calling thread, and the first of its addresses that can
    /// be bound is. A Unix socket that nobody listens on any more is replaced; any other file is not.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::AddrInUse`]: somebody listens there, or a file is in the way.
    /// - The system's own.
    pub fn open(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => Self::tcp(host, *port),
            Address::Unix(path) => Self::unix(path),
            Address::Vsock { cid, port } => Self::vsock(*cid, *port),
        }
    }

    /// Joins the runtime this is called on.
    ///
    /// # Errors
    ///
    /// The system's, when the descriptor cannot be registered.
    ///
    /// # Panics
    ///
    /// When there is no current runtime with its reactor enabled.
    pub fn attach(self) -> io::Result<Listener> {
        let local = match &self.address {
            Address::Tcp { .. } => self.socket.local_addr()?.as_socket(),
            Address::Unix(_) | Address::Vsock { .. } => None,
        };
        Ok(Listener {
            socket: register(self.socket, Interest::READABLE)?,
            address: self.address,
            local: local.filter(|address| !address.ip().is_unspecified()),
            _file: self.file,
        })
    }

    /// The address it listens on: the real port where 0 was asked for.
    pub fn local_address(&self) -> Address {
        self.address.clone()
    }

    fn tcp(host: &str, port: u16) -> io::Result<Self> {
        let mut last = None;
        for candidate in (host, port).to_socket_addrs()? {
            match Self::tcp_on(candidate) {
                Ok(bound) => return Ok(bound),
                Err(error) => last = Some(error),
            }
        }
        Err(last
            .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
    }

    fn tcp_on(candidate: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(candidate), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // Inherited by what is accepted: one system call less for each connection.
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(true)?;
        let socket = listen(socket, &SockAddr::from(candidate))?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(candidate);
        Ok(Self {
            socket,
            address: Address::Tcp {
                host: bound.ip().to_string(),
                port: bound.port(),
            },
            file: None,
        })
    }

    fn unix(path: &Path) -> io::Result<Self> {
        let name = SockAddr::unix(path)?;
        let make = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            listen(socket, &name)
        };
        let socket = match make() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path, &name) => {
                let stale = std::fs::symlink_metadata(path)?;
                std::fs::remove_file(path)?;
                let socket = make()?;
                keep_owner(path, &stale);
                socket
            }
            other => other?,
        };
        Ok(Self {
            socket,
            address: Address::Unix(path.to_owned()),
            file: Some(SocketFile::of(path)?),
        })
    }

    fn vsock(cid: u32, port: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        Ok(Self {
            socket: listen(socket, &SockAddr::vsock(cid, port))?,
            address: Address::Vsock { cid, port },
            file: None,
        })
    }
}

impl Listener {
    /// Binds, listens and joins the current runtime; see [`Bound::open`].
    ///
    /// # Errors
    ///
    /// Those of [`Bound::open`] and [`Bound::attach`].
    #[expect(
        clippy::unused_async,
        reason = "binding is where a runtime must exist; callers await it like every other start"
    )]
    pub async fn bind(address: &Address) -> io::Result<Self> {
        Bound::open(address)?.attach()
    }

    /// The address it listens on: the real port where 0 was asked for.
    pub fn local_address(&self) -> Address {
        self.address.clone()
    }

    /// Takes the next connection and registers it with the current runtime.
    ///
    /// Dropping the future loses no connection.
    ///
    /// # Errors
    ///
    /// As [`Self::accept_detached`].
    pub async fn accept(&self) -> io::Result<Accepted> {
        let accepted = self.accept_detached().await?;
        Ok(Accepted {
            stream: accepted.stream.attach()?,
            peer: accepted.peer,
            local: accepted.local,
        })
    }

    /// Takes the next connection, for a runtime chosen later.
    ///
    /// A connection that died in the queue is skipped. When descriptors or memory are short this
    /// waits and tries again, so that one flood does not end the listener.
    ///
    /// # Errors
    ///
    /// The system's own, when the listening socket itself is broken.
    pub async fn accept_detached(&self) -> io::Result<Accepted<Detached>> {
        // A crowd in the queue must not keep whoever else runs on this thread waiting.
        consume_budget().await;
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|socket| self.accept_now(socket.get_ref())) {
                Ok(Ok(accepted)) => return Ok(accepted),
                Ok(Err(error)) => match Errno::from_io_error(&error) {
                    Some(errno) if is_about_one_connection(errno) => {}
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        tracing::warn!(%error, "cannot accept; trying again");
                        drop(guard);
                        sleep(SHORTAGE_PAUSE).await;
                    }
                    _ => return Err(error),
                },
                Err(_would_block) => {}
            }
        }
    }

    fn accept_now(&self, socket: &Socket) -> io::Result<Accepted<Detached>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if matches!(self.address, Address::Tcp { .. }) {
            let (accepted, peer) = acceptfrom_with(socket, flags)?;
            let stream = std::net::TcpStream::from(accepted);
            let local = self.local.or_else(|| stream.local_addr().ok());
            return Ok(Accepted {
                stream: Detached::tcp(stream),
                peer: peer
                    .and_then(|address| SocketAddr::try_from(address).ok())
                    .map(canonical),
                local: local.map(canonical),
            });
        }
        let accepted: OwnedFd = accept_with(socket, flags)?;
        let stream = if matches!(self.address, Address::Unix(_)) {
            Detached::unix(accepted.into())
        } else {
            Detached::vsock(accepted.into())
        };
        Ok(Accepted {
            stream,
            peer: None,
            local: None,
        })
    }
}

fn listen(socket: Socket, name: &SockAddr) -> io::Result<Socket> {
    socket.set_nonblocking(true)?;
    socket.bind(name)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Gives a socket file to the owner of the one whose place it takes: a sandbox that the sockets of a
/// run were given to reaches a host that was started again.
fn keep_owner(path: &Path, before: &std::fs::Metadata) {
    let owner = (Some(before.uid()), Some(before.gid()));
    if let Err(error) = std::os::unix::fs::lchown(path, owner.0, owner.1) {
        tracing::debug!(path = %path.display(), %error, "a socket has another owner than before");
    }
}

/// A socket file is stale when nobody accepts behind it.
fn is_stale(path: &Path, name: &SockAddr) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let Ok(probe) = Socket::new(Domain::UNIX, Type::STREAM, None) else {
        return false;
    };
    // Without this a full backlog would block the probe.
    if SockRef::from(&probe).set_nonblocking(true).is_err() {
        return false;
    }
    is_socket
        && probe
            .connect(name)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// accept(2): errors already pending on the new socket are passed on as if they were the listener's.
fn is_about_one_connection(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::PERM
            | Errno::PROTO
            | Errno::TIMEDOUT
    )
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => SocketAddr::new(ip.to_canonical(), address.port()),
    }
}

/// The file of a Unix socket, removed when it is still the one that was made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // Nothing is left to do about a file that cannot be removed.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
