//! A stream of HTTP/2 as bytes both ways (RFC 8441 §5), and whatever else a tunnel may run over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The user process's end of a tunnel, on whatever it was opened.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// What the connection of a stream is told of it while it lasts; dropped when it is over.
pub(super) trait Host {
    /// So many bytes came or went.
    fn moved(&self, bytes: usize);
}

/// A stream of HTTP/2. Dropping it before both ends were said resets it: `h2` sees to that.
pub(super) struct StreamDuplex<P> {
    receiving: RecvStream,
    sending: SendStream<Bytes>,
    /// What was received and not read yet.
    rest: Bytes,
    host: P,
}

impl<P> StreamDuplex<P> {
    pub(super) fn new(receiving: RecvStream, sending: SendStream<Bytes>, host: P) -> Self {
        Self {
            receiving,
            sending,
            rest: Bytes::new(),
            host,
        }
    }
}

impl<P: Host + Unpin> AsyncRead for StreamDuplex<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receiving.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => {
                    self.host.moved(data.len());
                    self.rest = data;
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let count = buffer.remaining().min(self.rest.len());
        buffer.put_slice(self.rest.get(..count).unwrap_or_default());
        self.rest.advance(count);
        // What was read makes room for as much again.
        let released = self.receiving.flow_control().release_capacity(count);
        Poll::Ready(released.map_err(io::Error::other))
    }
}

impl<P: Host + Unpin> AsyncWrite for StreamDuplex<P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.sending.reserve_capacity(bytes.len());
        let room = loop {
            let room = self.sending.capacity();
            if room > 0 {
                break room;
            }
            match ready!(self.sending.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        };
        let part = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.host.moved(part.len());
        let sent = self.sending.send_data(Bytes::copy_from_slice(part), false);
        Poll::Ready(sent.map(|()| part.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.sending.send_data(Bytes::new(), true);
        Poll::Ready(sent.map_err(io::Error::other))
    }
}
