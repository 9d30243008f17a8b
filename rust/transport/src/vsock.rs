//! The vsock stream, over the readiness of a plain socket.
//!
//! Thin on purpose: everything that can be wrong with a stream is wrong in the kernel's hands, and
//! what is above ([`crate::stream`]) is the same code for the other two kinds.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::readiness::register;

/// A connected vsock stream.
#[derive(Debug)]
pub struct VsockStream(AsyncFd<Socket>);

impl VsockStream {
    pub(crate) async fn connect(cid: u32, port: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&SockAddr::vsock(cid, port)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
            Err(error) => return Err(error),
        }
        let stream = Self::from_socket(socket)?;
        drop(stream.0.writable().await?);
        match stream.0.get_ref().take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// `socket` is non-blocking and connected.
    pub(crate) fn from_socket(socket: Socket) -> io::Result<Self> {
        register(socket, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    pub(crate) fn into_socket(self) -> Socket {
        self.0.into_inner()
    }

    pub(crate) fn socket(&self) -> &Socket {
        self.0.get_ref()
    }
}

/// `EINPROGRESS` of connect(2).
const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

impl AsyncRead for VsockStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|inner| inner.get_ref().read(unfilled)) {
                Ok(result) => {
                    buffer.advance(result?);
                    return Poll::Ready(Ok(()));
                }
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for VsockStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.try_io(|inner| inner.get_ref().write(bytes)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.get_ref().shutdown(Shutdown::Write))
    }
}
