//! A connection whose protocol was switched: bytes go both ways and nobody here reads them.
//!
//! Each direction has one buffer, filled again when all of it was written: who sends faster than the
//! other side reads waits. A side that ends is ended for the other side too, and the other direction
//! goes on. Nothing ends a tunnel that is quiet unless a limit is set; one of which a side has ended
//! already, or a side that takes nothing, has `body_idle`.
//!
//! Whether the protocol was switched is decided in [`super::download`], never here.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::Instant;

use super::inbox::Inbox;
use super::{BUSY, Conversation};
use crate::engine::counters::{Gauge, add};
use crate::engine::deadline::Deadline;
use crate::engine::log::Entry;
use crate::engine::outcome::Totals;
use crate::engine::pool::Upstream;
use crate::engine::settings::Settings;
use crate::engine::site::Site;

/// A session, from the switch to its end. Its record is written when it is dropped, so that one that
/// is broken off with the engine has one too.
pub(super) struct Session<'s> {
    site: &'s Site,
    entry: Option<Entry>,
    totals: Totals,
    begun: Instant,
    /// Bytes of the tunnel from the client, and to it.
    received: Cell<u64>,
    sent: Cell<u64>,
    _open: Gauge<'s>,
}

impl<'s> Session<'s> {
    /// `totals` and `begun` are those of the handshake.
    pub(super) fn new(
        site: &'s Site,
        entry: Option<Entry>,
        totals: Totals,
        begun: Instant,
    ) -> Self {
        add(&site.counters.websockets, 1);
        Self {
            site,
            entry,
            totals,
            begun,
            received: Cell::new(0),
            sent: Cell::new(0),
            _open: Gauge::enter(&site.counters.active_websockets),
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let totals = &mut self.totals;
        totals.bytes_in = totals.bytes_in.saturating_add(self.received.get());
        totals.bytes_out = totals.bytes_out.saturating_add(self.sent.get());
        totals.count(&self.site.counters);
        if let (Some(sink), Some(entry)) = (&self.site.sink, self.entry.take()) {
            entry.end(totals, self.begun.elapsed(), sink);
        }
    }
}

/// How a tunnel ended.
enum End {
    /// A side broke off, or took nothing for too long.
    Cut,
    /// Nothing came for too long.
    Quiet,
    /// Both sides ended.
    Whole,
}

impl Conversation<'_> {
    /// Moves bytes until the tunnel ends. What is left in the inbox is its beginning.
    pub(super) async fn tunnel(&mut self, mut upstream: Upstream, session: Session<'_>) {
        // There is no other head on this connection.
        (self.head_bytes, self.out) = (Vec::new(), Vec::new());
        let settings = &self.site.settings;
        let last = Cell::new(Instant::now());
        let pump = |inbox, moved| Pump {
            inbox,
            moved,
            last: &last,
            stall: settings.body_idle,
            deadline: Deadline::default(),
        };
        let (mut is_receiving, mut is_sending) = (true, true);
        let end = {
            let (mut client_reads, mut client_writes) = split(&mut self.client.stream);
            let (mut process_reads, mut process_writes) = split(&mut upstream.stream);
            let up = pump(std::mem::take(&mut self.inbox), &session.received);
            let down = pump(Inbox::default(), &session.sent);
            let mut up = pin!(up.run(&mut client_reads, &mut process_writes));
            let mut down = pin!(down.run(&mut process_reads, &mut client_writes));
            let mut clock = Deadline::default();
            poll_fn(|context| {
                if is_receiving && let Poll::Ready(ended) = up.as_mut().poll(context) {
                    is_receiving = false;
                    if ended.is_err() {
                        return Poll::Ready(End::Cut);
                    }
                }
                if is_sending && let Poll::Ready(ended) = down.as_mut().poll(context) {
                    is_sending = false;
                    if ended.is_err() {
                        return Poll::Ready(End::Cut);
                    }
                }
                if !is_receiving && !is_sending {
                    return Poll::Ready(End::Whole);
                }
                let limit = longest_quiet(settings, is_receiving && is_sending);
                match limit.and_then(|limit| last.get().checked_add(limit)) {
                    Some(end) => clock.poll_at(context, end).map(|()| End::Quiet),
                    None => Poll::Pending,
                }
            })
            .await
        };
        self.has_ended = !is_receiving;
        self.is_broken = matches!(end, End::Cut);
    }
}

/// How long nothing may come, both ways.
fn longest_quiet(settings: &Settings, is_open_both_ways: bool) -> Option<Duration> {
    if is_open_both_ways {
        return settings.tunnel_idle;
    }
    let idle = settings.tunnel_idle.unwrap_or(Duration::MAX);
    Some(idle.min(settings.body_idle))
}

/// One direction.
struct Pump<'p> {
    inbox: Inbox,
    moved: &'p Cell<u64>,
    /// When something moved last, in either direction.
    last: &'p Cell<Instant>,
    stall: Duration,
    deadline: Deadline,
}

impl Pump<'_> {
    /// Moves bytes until `from` ends, and then ends `to`.
    async fn run<R, W>(mut self, from: &mut R, to: &mut W) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.inbox.is_empty() {
                let write = to.write(self.inbox.rest());
                let written = self.deadline.within(self.stall, write).await;
                let count = written.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.inbox.consume(count);
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                self.moved.set(self.moved.get().saturating_add(count));
                self.last.set(Instant::now());
            }
            let flushed = self.deadline.within(self.stall, to.flush()).await;
            flushed.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
            if self.fill(from).await? == 0 {
                let ended = self.deadline.within(self.stall, to.shutdown()).await;
                self.last.set(Instant::now());
                return ended.map_err(|_elapsed| io::ErrorKind::TimedOut)?;
            }
        }
    }

    /// Waits for bytes; one that waits longer gives its room back.
    async fn fill<R: AsyncRead + Unpin>(&mut self, from: &mut R) -> io::Result<usize> {
        let soon = self.deadline.within(BUSY, self.inbox.fill_bulk(from)).await;
        if let Ok(filled) = soon {
            return filled;
        }
        self.inbox.release();
        self.inbox.fill_small(from).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a session costs while it is busy, and while it waits.
    #[test]
    fn a_pump_keeps_little_and_less_while_it_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (moved, last) = (Cell::new(0), Cell::new(Instant::now()));
            let mut pump = Pump {
                inbox: Inbox::default(),
                moved: &moved,
                last: &last,
                stall: Duration::from_secs(1),
                deadline: Deadline::default(),
            };
            let (mut near, mut far) = tokio::io::duplex(1 << 20);
            for _ in 0..3 {
                near.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
                let mut left = 1 << 20;
                while left > 0 {
                    let count = pump.fill(&mut far).await.unwrap();
                    left -= count;
                    assert!(pump.inbox.room() <= 128 * 1024, "{}", pump.inbox.room());
                    pump.inbox.consume(count);
                }
                let quiet = Duration::from_secs(3600);
                let waited = tokio::time::timeout(quiet, pump.fill(&mut far)).await;
                waited.unwrap_err();
                assert!(pump.inbox.room() <= 1024, "{}", pump.inbox.room());
            }
        });
    }
}
