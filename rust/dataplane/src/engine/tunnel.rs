//! Bytes that go both ways and that nobody here reads: a WebSocket session, or TCP inside TLS.
//!
//! Each direction has one buffer, filled again when all of it was written: who sends faster than the
//! other side reads waits. A side that ends is ended for the other side too, and the other direction
//! goes on; so it does when a side takes no more. Nothing ends a tunnel that is quiet unless a limit
//! is set; one of which a side has ended already, or a side that takes nothing, has `body_idle`.
//!
//! What opens a tunnel, and what is written of it, [`super::h1`] and [`super::tcp`] decide.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::Instant;

use super::deadline::Deadline;
use super::inbox::Inbox;
use super::settings::Settings;

/// What a tunnel is bounded by, and what it counts.
pub(super) struct Tunnel<'t> {
    pub(super) settings: &'t Settings,
    /// Bytes from the client, and to it.
    pub(super) received: &'t Cell<u64>,
    pub(super) sent: &'t Cell<u64>,
}

/// How a tunnel ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) how: End,
    /// Whether the client had ended its side.
    pub(super) client_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A side broke off, or took nothing for too long.
    Cut,
    /// Nothing came for too long.
    Quiet,
    /// Both sides ended.
    Whole,
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    /// The end was passed on.
    Whole,
    /// The other side takes no more.
    Refused,
}

impl Tunnel<'_> {
    /// Moves bytes until the tunnel ends. `inbox` has what came from the client before.
    pub(super) async fn run<C, P>(&self, inbox: Inbox, client: &mut C, process: &mut P) -> Ended
    where
        C: AsyncRead + AsyncWrite + Unpin,
        P: AsyncRead + AsyncWrite + Unpin,
    {
        let settings = self.settings;
        let last = Cell::new(Instant::now());
        let pump = |inbox, moved| Pump {
            inbox,
            moved,
            last: &last,
            stall: settings.body_idle,
            deadline: Deadline::default(),
        };
        let (mut client_reads, mut client_writes) = split(client);
        let (mut process_reads, mut process_writes) = split(process);
        let up = pump(inbox, self.received);
        let down = pump(Inbox::default(), self.sent);
        let mut up = pin!(up.run(&mut client_reads, &mut process_writes));
        let mut down = pin!(down.run(&mut process_reads, &mut client_writes));
        let (mut is_receiving, mut is_sending) = (true, true);
        let mut client_ended = false;
        let mut clock = Deadline::default();
        let how = poll_fn(|context| {
            if is_receiving && let Poll::Ready(ended) = up.as_mut().poll(context) {
                is_receiving = false;
                match ended {
                    Ok(passed) => client_ended = passed == Passed::Whole,
                    Err(_broken) => return Poll::Ready(End::Cut),
                }
            }
            if is_sending && let Poll::Ready(ended) = down.as_mut().poll(context) {
                is_sending = false;
                // A client that takes nothing is not served any more.
                if !matches!(ended, Ok(Passed::Whole)) {
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
        .await;
        Ended { how, client_ended }
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
    /// Moves bytes until `from` ends, and then ends `to`; or until `to` takes no more.
    ///
    /// # Errors
    ///
    /// `from` broke off, or `to` took nothing for too long.
    async fn run<R, W>(mut self, from: &mut R, to: &mut W) -> io::Result<Passed>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.inbox.is_empty() {
                let write = to.write(self.inbox.rest());
                let written = self.deadline.within(self.stall, write).await;
                let count = match written {
                    Ok(Ok(count)) if count > 0 => count,
                    // A reset says that nothing is whole. Who only takes no more has ended its own side
                    // before, and the system calls that a broken pipe.
                    Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                        return Err(error);
                    }
                    Ok(_closed) => return Ok(Passed::Refused),
                    Err(_elapsed) => return Err(io::ErrorKind::TimedOut.into()),
                };
                self.inbox.consume(count);
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                self.moved.set(self.moved.get().saturating_add(count));
                self.last.set(Instant::now());
            }
            let flushed = self.deadline.within(self.stall, to.flush()).await;
            if flushed
                .map_err(|_elapsed| io::ErrorKind::TimedOut)?
                .is_err()
            {
                return Ok(Passed::Refused);
            }
            if self.fill(from).await? == 0 {
                let ended = self.deadline.within(self.stall, to.shutdown()).await;
                self.last.set(Instant::now());
                // A side that is gone already needs no end.
                let _ended = ended.map_err(|_elapsed| io::ErrorKind::TimedOut)?;
                return Ok(Passed::Whole);
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

/// How long a tunnel is busy after bytes of it.
const BUSY: Duration = Duration::from_millis(500);

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
