//! What a pump joins: any stream, and those of the kernel, which splice(2) works on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// One of the two streams of a pump.
pub(super) trait Side: AsyncRead + AsyncWrite + Unpin {
    /// The stream, when splice(2) works on it.
    fn spliceable(&self) -> Option<&Stream>;
}

impl Side for Stream {
    fn spliceable(&self) -> Option<&Stream> {
        // vsock has no splice_read of its own: the kernel would copy all the same.
        (!matches!(self, Self::Vsock(_))).then_some(self)
    }
}

/// A stream that is read and written and nothing else.
pub(super) struct Copying<'a, T>(pub(super) &'a mut T);

impl<T: AsyncRead + AsyncWrite + Unpin> Side for Copying<'_, T> {
    fn spliceable(&self) -> Option<&Stream> {
        None
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Copying<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Copying<'_, T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}
