//! The stream below `h2`: what is written to it is encrypted at once, and sent when the connection has
//! nothing more to do for the moment.
//!
//! `h2` flushes behind each frame of a body. Sent one by one, the frames of 1 MiB cost 64 system calls;
//! gathered in the buffer of TLS, which is bounded, they cost eight. Nothing waits for that: the task of
//! the connection sends what it gathered before it waits for anything.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::linger::Linger;
use super::meter::Meter;
use crate::engine::connection::Opened;

/// A stream that can be written to without sending.
pub(super) trait Gathering: AsyncRead + AsyncWrite + Unpin {
    /// Takes some of the bytes, none when it has no room left.
    fn put(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// How many bytes the client's socket has taken, of whatever they are made into; wraps around.
    fn sent(&self) -> u64;
}

impl Gathering for TlsStream<Opened> {
    fn put(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.get_mut().1.writer().write_vectored(slices)
    }

    fn sent(&self) -> u64 {
        self.get_ref().0.sent()
    }
}

/// What `h2` and the connection's task both hold.
#[derive(Debug)]
struct Shared<T> {
    stream: RefCell<T>,
    meter: Rc<Meter>,
    is_gathering: Cell<bool>,
}

impl<T: Gathering> Shared<T> {
    /// Sends what was gathered.
    fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.stream.borrow_mut();
        let polled = Pin::new(&mut *stream).poll_flush(context);
        self.meter.sent(stream.sent(), polled.is_ready());
        polled
    }

    fn poll_put(
        &self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let put = || self.stream.borrow_mut().put(slices);
        let count = put()?;
        if count > 0 || slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(count));
        }
        let sent = self.poll_send(context)?;
        // A part of it may have been sent, and left room.
        match (put()?, sent) {
            (0, Poll::Pending) => Poll::Pending,
            (count, _) => Poll::Ready(Ok(count)),
        }
    }
}

/// What `h2` reads from and writes to: reads are counted, and once it is shut down, it is read a while
/// longer. Until [`Sender::gather`] is called, a flush sends.
#[derive(Debug)]
pub(super) struct Wire<T> {
    shared: Rc<Shared<T>>,
    is_shut: bool,
    linger: Linger,
}

/// Sends what was written to a [`Wire`].
#[derive(Debug)]
pub(super) struct Sender<T>(Rc<Shared<T>>);

impl<T: Gathering> Sender<T> {
    /// From here on nothing is sent but by [`Self::poll`], and when there is no room left.
    pub(super) fn gather(&self) {
        self.0.is_gathering.set(true);
    }

    /// Sends what was gathered; ready when the socket has taken all of it.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_send(context)
    }
}

/// Makes both ends of `stream`.
pub(super) fn wire<T: Gathering>(
    stream: T,
    meter: Rc<Meter>,
    linger: Duration,
) -> (Wire<T>, Sender<T>) {
    let shared = Rc::new(Shared {
        stream: RefCell::new(stream),
        meter,
        is_gathering: Cell::new(false),
    });
    let wire = Wire {
        shared: Rc::clone(&shared),
        is_shut: false,
        linger: Linger::new(linger),
    };
    (wire, Sender(shared))
}

impl<T: Gathering> AsyncRead for Wire<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let mut stream = self.shared.stream.borrow_mut();
        let polled = Pin::new(&mut *stream).poll_read(context, buffer);
        let count = buffer.filled().len().saturating_sub(before);
        self.shared.meter.read(super::length(count));
        polled
    }
}

impl<T: Gathering> AsyncWrite for Wire<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.shared.poll_put(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.poll_put(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shared.is_gathering.get() {
            return Poll::Ready(Ok(()));
        }
        self.shared.poll_send(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut stream = this.shared.stream.borrow_mut();
        if !this.is_shut {
            let polled = Pin::new(&mut *stream).poll_shutdown(context);
            this.shared.meter.sent(stream.sent(), polled.is_ready());
            ready!(polled)?;
            this.is_shut = true;
        }
        this.linger.poll(&mut *stream, context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// A link with room for so many bytes before it.
    struct Link {
        stream: DuplexStream,
        gathered: Vec<u8>,
        room: usize,
        sent: u64,
    }

    impl Gathering for Link {
        fn put(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let mut count = 0;
            for slice in slices {
                let left = self.room.saturating_sub(self.gathered.len());
                let part = slice.get(..left.min(slice.len())).unwrap_or_default();
                self.gathered.extend_from_slice(part);
                count = part.len().saturating_add(count);
            }
            Ok(count)
        }

        fn sent(&self) -> u64 {
            self.sent
        }
    }

    impl AsyncRead for Link {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Link {
        fn poll_write(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            _bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            let this = &mut *self;
            while !this.gathered.is_empty() {
                let written = Pin::new(&mut this.stream).poll_write(context, &this.gathered);
                let count = ready!(written)?;
                this.gathered.drain(..count);
                this.sent = this.sent.wrapping_add(crate::engine::h2::length(count));
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            ready!(self.as_mut().poll_flush(context))?;
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }

    fn link(room: usize, socket: usize) -> (Wire<Link>, Sender<Link>, DuplexStream, Rc<Meter>) {
        let (mine, other) = tokio::io::duplex(socket);
        let meter = Rc::new(Meter::new(10));
        let link = Link {
            stream: mine,
            gathered: Vec::new(),
            room,
            sent: 0,
        };
        let (wire, sender) = wire(link, Rc::clone(&meter), Duration::from_secs(1));
        (wire, sender, other, meter)
    }

    /// Whether bytes have arrived, without waiting for any.
    async fn arrived(other: &mut DuplexStream) -> Vec<u8> {
        let mut bytes = vec![0; 1000];
        let count = tokio::select! {
            biased;
            count = other.read(&mut bytes) => count.unwrap(),
            () = std::future::ready(()) => 0,
        };
        bytes.truncate(count);
        bytes
    }

    #[tokio::test]
    async fn what_is_written_is_sent_together_and_not_by_a_flush() {
        let (mut wire, sender, mut other, _) = link(100, 1000);
        wire.write_all(b"settings").await.unwrap();
        wire.flush().await.unwrap();
        assert_eq!(arrived(&mut other).await, b"settings");
        sender.gather();
        for frame in [b"one".as_slice(), b"two"] {
            wire.write_all(frame).await.unwrap();
            wire.flush().await.unwrap();
        }
        assert_eq!(arrived(&mut other).await, b"");
        poll_fn(|context| sender.poll(context)).await.unwrap();
        assert_eq!(arrived(&mut other).await, b"onetwo");
    }

    /// Nothing is lost or written twice, and no more is gathered than there is room for.
    #[tokio::test]
    async fn what_finds_no_room_waits_for_the_socket_and_keeps_its_order() {
        let (mut wire, sender, mut other, _) = link(10, 7);
        sender.gather();
        let sent: Vec<u8> = (0..=255).collect();
        let writing = async {
            for part in sent.chunks(23) {
                wire.write_all(part).await.unwrap();
            }
            poll_fn(|context| sender.poll(context)).await.unwrap();
            drop((wire, sender));
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(other.read_to_end(&mut got), writing);
        read.unwrap();
        assert_eq!(got, sent);
    }

    #[tokio::test(start_paused = true)]
    async fn t03_a_client_that_takes_nothing_is_known_since_when() {
        let (mut wire, sender, mut other, meter) = link(100, 10);
        sender.gather();
        wire.write_all(&[1; 30]).await.unwrap();
        assert!(meter.stalled().is_none());
        let poll = || poll_fn(|context| Poll::Ready(sender.poll(context).is_ready()));
        assert!(!poll().await);
        let since = meter.stalled().unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
        // More was put, and nothing of it taken.
        wire.write_all(&[1; 50]).await.unwrap();
        assert!(!poll().await);
        assert_eq!(meter.stalled(), Some(since));
        // Some of it is taken, which leaves room for more, and then nothing again.
        other.read_exact(&mut [0; 5]).await.unwrap();
        assert!(!poll().await);
        assert_eq!(meter.stalled(), Some(since + Duration::from_secs(5)));
        let taking = async {
            let mut rest = [0; 75];
            other.read_exact(&mut rest).await.unwrap();
        };
        let sending = async {
            poll_fn(|context| sender.poll(context)).await.unwrap();
        };
        tokio::join!(taking, sending);
        assert!(meter.stalled().is_none());
    }
}
