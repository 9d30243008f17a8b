//! One byte stream of any kind, and the way it moves from one runtime to another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

pub use crate::vsock::VsockStream;

/// A connected stream, registered with the runtime it was made on.
///
/// TCP streams have `TCP_NODELAY` set. Shutting down the write side sends the end of the stream to
/// the peer and leaves reading open. Dropping it closes it.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
    /// Vsock.
    Vsock(VsockStream),
}

/// A connected stream that belongs to no runtime: it may be sent to another thread and attached to
/// the runtime there.
#[derive(Debug)]
pub struct Detached(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    Vsock(Socket),
}

impl Stream {
    /// Leaves the runtime it was made on.
    ///
    /// # Errors
    ///
    /// The system's, when the descriptor cannot be taken out of the reactor.
    pub fn into_detached(self) -> io::Result<Detached> {
        Ok(Detached(match self {
            Self::Tcp(stream) => Kind::Tcp(stream.into_std()?),
            Self::Unix(stream) => Kind::Unix(stream.into_std()?),
            Self::Vsock(stream) => Kind::Vsock(stream.into_socket()),
        }))
    }

    /// Makes the close that follows an abortive one: a TCP peer sees a reset, not an end of stream.
    /// Other kinds have no such thing, and this does nothing.
    pub fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // A socket that is gone already needs no reset.
            drop(socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)));
        }
    }
}

impl Stream {
    /// Reads what has arrived, without asking the runtime whether anything has: for the first read of
    /// a connection, whose peer usually spoke before it was accepted.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when nothing has; else the system's.
    pub fn read_at_once(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self, buffer, RecvFlags::DONTWAIT)?.0)
    }

    /// Writes what the kernel takes right now, without asking the runtime whether it takes anything:
    /// for the first write of a connection, whose buffer is empty.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when it takes nothing; else the system's.
    pub fn write_at_once(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(self, slices)?)
    }

    /// Runs `work`, a non-blocking system call, when the stream is ready for it, until it does not
    /// say that it would block.
    pub(crate) fn poll_io<R>(
        &self,
        context: &mut Context<'_>,
        interest: Interest,
        mut work: impl FnMut() -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let done = match self {
                Self::Tcp(stream) => {
                    ready!(if interest.is_readable() {
                        stream.poll_read_ready(context)
                    } else {
                        stream.poll_write_ready(context)
                    })?;
                    stream.try_io(interest, &mut work)
                }
                Self::Unix(stream) => {
                    ready!(if interest.is_readable() {
                        stream.poll_read_ready(context)
                    } else {
                        stream.poll_write_ready(context)
                    })?;
                    stream.try_io(interest, &mut work)
                }
                Self::Vsock(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            match done {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

impl Detached {
    pub(crate) fn tcp(stream: std::net::TcpStream) -> Self {
        Self(Kind::Tcp(stream))
    }

    pub(crate) fn unix(stream: std::os::unix::net::UnixStream) -> Self {
        Self(Kind::Unix(stream))
    }

    pub(crate) fn vsock(socket: Socket) -> Self {
        Self(Kind::Vsock(socket))
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
    pub fn attach(self) -> io::Result<Stream> {
        Ok(match self.0 {
            Kind::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Kind::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
            Kind::Vsock(socket) => Stream::Vsock(VsockStream::from_socket(socket)?),
        })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Vsock(stream) => stream.socket().as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Vsock(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Vsock(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Vsock(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        !matches!(self, Self::Vsock(_))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is buffered on this side of the kernel.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Vsock(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
