//! How much a connection costs against how much it asks for.
//!
//! Frames that carry nothing of a request or a response (SETTINGS, PING, `WINDOW_UPDATE`, PRIORITY, empty
//! DATA) are cheap to send and not free to read. A client may send as many bytes of them as eight times
//! the bytes of heads and bodies both ways, and 8 MiB more: downloads in small windows stay far below
//! that. Requests that are taken back before they were answered are counted for ten seconds each.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::linger::Linger;
use crate::engine::duplex::Host;

/// Bytes read for each byte of heads and bodies, and bytes besides.
const BYTES_PER_PAYLOAD: u64 = 8;
const BYTES_BESIDES: u64 = 8 * 1024 * 1024;
/// What rustls takes while the client takes nothing: its buffer of 64 KiB, and a record more.
const TLS_BYTES: usize = (64 + 16) * 1024;
/// How long requests that were taken back are counted together.
const RESETS_FOR: Duration = Duration::from_secs(10);

/// What is counted of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    read: Cell<u64>,
    payload: Cell<u64>,
    max_resets: u32,
    resets: Cell<u32>,
    resets_since: Cell<Option<Instant>>,
    /// Since when the client takes nothing of what was written.
    stalled: Cell<Option<Instant>>,
    /// Bytes that were taken since then and may wait in TLS.
    waiting: Cell<usize>,
}

impl Meter {
    pub(super) fn new(max_resets: u32) -> Self {
        Self {
            read: Cell::new(0),
            payload: Cell::new(0),
            max_resets,
            resets: Cell::new(0),
            resets_since: Cell::new(None),
            stalled: Cell::new(None),
            waiting: Cell::new(0),
        }
    }

    /// Counts bytes of heads and bodies.
    pub(super) fn payload(&self, bytes: u64) {
        self.payload.set(self.payload.get().saturating_add(bytes));
    }

    /// Counts a request that the client took back before it was answered.
    pub(super) fn reset(&self) {
        let now = Instant::now();
        let is_recent = |since: Instant| now.saturating_duration_since(since) < RESETS_FOR;
        if !self.resets_since.get().is_some_and(is_recent) {
            self.resets_since.set(Some(now));
            self.resets.set(0);
        }
        self.resets.set(self.resets.get().saturating_add(1));
    }

    /// Whether the connection costs more than it is worth.
    pub(super) fn is_flood(&self) -> bool {
        let allowed = self.payload.get().saturating_mul(BYTES_PER_PAYLOAD);
        self.read.get() > allowed.saturating_add(BYTES_BESIDES)
            || self.resets.get() > self.max_resets
    }

    /// Since when the client takes nothing of what was written.
    pub(super) fn stalled(&self) -> Option<Instant> {
        self.stalled.get()
    }

    /// Takes note of a write. That TLS has room for it says nothing of the client, until it is more
    /// than TLS holds.
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Ready(Ok(count)) if self.stalled.get().is_some() => {
                let waiting = self.waiting.get().saturating_add(*count);
                self.waiting.set(waiting);
                if waiting > TLS_BYTES {
                    self.stalled.set(None);
                }
            }
            Poll::Ready(_) => {}
            Poll::Pending => self.stall(),
        }
        polled
    }

    /// Takes note of a flush: after one nothing waits in TLS.
    fn flushed<R>(&self, polled: Poll<R>) -> Poll<R> {
        match polled {
            Poll::Ready(_) => self.stalled.set(None),
            Poll::Pending => self.stall(),
        }
        polled
    }

    fn stall(&self) {
        if self.stalled.get().is_none() {
            self.stalled.set(Some(Instant::now()));
            self.waiting.set(0);
        }
    }
}

impl Host for Rc<Meter> {
    /// What a tunnel carries is payload as bodies are.
    fn moved(&self, bytes: usize) {
        self.payload(super::length(bytes));
    }
}

/// A stream whose reads are counted and whose writes are watched. Shut down, it is read a while longer.
#[derive(Debug)]
pub(super) struct Metered<T> {
    stream: T,
    meter: Rc<Meter>,
    is_shut: bool,
    linger: Linger,
}

impl<T> Metered<T> {
    pub(super) fn new(stream: T, meter: Rc<Meter>, linger: Duration) -> Self {
        Self {
            stream,
            meter,
            is_shut: false,
            linger: Linger::new(linger),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len().saturating_sub(before);
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let meter = &self.meter;
        meter.read.set(meter.read.get().saturating_add(count));
        polled
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.meter.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.meter.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.meter.flushed(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_shut {
            let polled = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.meter.flushed(polled))?;
            this.is_shut = true;
        }
        this.linger.poll(&mut this.stream, context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t03_frames_without_payload_are_a_flood_at_some_point() {
        let meter = Meter::new(10);
        meter.read.set(BYTES_BESIDES);
        assert!(!meter.is_flood());
        meter.read.set(BYTES_BESIDES + 1);
        assert!(meter.is_flood());
        meter.payload(1);
        assert!(!meter.is_flood());
    }

    #[test]
    fn t03_what_tls_takes_is_not_taken_by_the_client() {
        let meter = Meter::new(10);
        let wrote = |count| meter.wrote(Poll::Ready(Ok(count)));
        let _progress = wrote(1000);
        assert!(meter.stalled().is_none());
        let _stall = meter.flushed(Poll::<()>::Pending);
        let since = meter.stalled();
        assert!(since.is_some());
        let _taken = wrote(TLS_BYTES);
        let _stall = meter.wrote(Poll::Pending);
        assert_eq!(meter.stalled(), since);
        let _progress = wrote(1);
        assert!(meter.stalled().is_none());
        let _stall = meter.wrote(Poll::Pending);
        assert!(meter.stalled().is_some());
        let _progress = meter.flushed(Poll::Ready(()));
        assert!(meter.stalled().is_none());
    }

    #[test]
    fn t03_requests_that_are_taken_back_are_counted_for_ten_seconds() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let meter = Meter::new(10);
            for _ in 0..5 {
                for _ in 0..10 {
                    meter.reset();
                }
                assert!(!meter.is_flood());
                tokio::time::advance(RESETS_FOR).await;
            }
            for _ in 0..11 {
                assert!(!meter.is_flood());
                meter.reset();
            }
            assert!(meter.is_flood());
        });
    }
}
