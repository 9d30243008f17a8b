//! Joins two streams: what arrives on one leaves on the other, both ways, until both ends are done.
//!
//! An end of stream is passed on by itself, so a half-closed connection stays half-closed. Bytes go
//! through one scratch buffer of the worker; only what a slow reader did not take is kept for its
//! connection, so an idle connection holds no buffer. Between two streams of the kernel, a direction
//! that fills the buffer several times in a row goes on through a pipe with splice(2), and comes back
//! when there is little to move (performance.md §3.1).

mod direction;
mod side;
mod splice;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use self::direction::Direction;
use self::side::{Copying, Side};
use self::splice::{Lease, Pool};
use crate::stream::Stream;

/// Size of the scratch buffer, in bytes (performance.md: 64 KiB is where copying stops gaining).
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// The buffer that all connections of one worker copy through. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Scratch {
    buffer: Rc<RefCell<Box<[u8]>>>,
    pipes: Rc<Pool>,
}

/// How long two joined streams may go on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No byte in either direction for this long ends both; `None`: nothing does.
    pub idle: Option<Duration>,
    /// The same, and no longer, when there are bytes that a side does not take, or one side has
    /// ended.
    pub stall: Duration,
    /// After one side refused what the other sends, and all that it said itself was delivered, the
    /// other's bytes are taken and thrown away for this long, so that its answer is not lost to a
    /// reset (RFC 9112 §9.6 describes the same for servers).
    pub linger: Duration,
}

/// Bytes moved, counted while they move. Shared by all connections of a worker.
#[derive(Debug, Default)]
pub struct Meter {
    /// From the first stream to the second.
    pub forward: AtomicU64,
    /// From the second stream to the first.
    pub backward: AtomicU64,
}

/// What [`copy_both`] did.
#[derive(Debug)]
pub struct Copied {
    /// Bytes from the first stream to the second.
    pub forward: u64,
    /// Bytes from the second stream to the first.
    pub backward: u64,
    /// How it ended.
    pub end: End,
}

/// How two joined streams ended.
#[derive(Debug)]
pub enum End {
    /// Both ends were passed on.
    Closed,
    /// One side failed while it was read; the other should be reset.
    Failed(io::Error),
    /// Nothing moved for [`Limits::idle`], or [`Limits::stall`].
    Idle,
}

impl Scratch {
    /// Makes the buffer of one worker.
    pub fn new() -> Self {
        Self {
            buffer: Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into())),
            pipes: Rc::new(Pool::default()),
        }
    }

    /// Lends the buffer to `work`, which must not wait while it holds it.
    pub fn with<R>(&self, work: impl FnOnce(&mut [u8]) -> R) -> R {
        work(&mut self.buffer.borrow_mut())
    }

    fn lend_pipe(&self) -> Option<Lease> {
        Pool::lend(&self.pipes)
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Limits {
    /// An hour without a byte, whatever waits; two seconds of lingering.
    fn default() -> Self {
        Self {
            idle: Some(Duration::from_secs(3600)),
            stall: Duration::from_secs(3600),
            linger: Duration::from_secs(2),
        }
    }
}

/// Moves bytes between `first` and `second` until both have ended, one fails, or nothing moves for
/// as long as `limits` allow.
///
/// The end of one direction is passed on with a shutdown of the other stream's write side. When one
/// side stops taking bytes (it closed, or its write fails), what it still has to say is delivered
/// first. Both streams are the caller's to drop afterwards.
pub async fn copy_both<A, B>(
    first: &mut A,
    second: &mut B,
    limits: Limits,
    scratch: &Scratch,
    meter: &Meter,
) -> Copied
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    copy_both_after(Vec::new(), first, second, limits, scratch, meter).await
}

/// As [`copy_both`], with `opening` written to `second` before anything that `first` sends.
///
/// `opening` is not counted: it is the caller's own.
pub async fn copy_both_after<A, B>(
    opening: Vec<u8>,
    first: &mut A,
    second: &mut B,
    limits: Limits,
    scratch: &Scratch,
    meter: &Meter,
) -> Copied
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut first, mut second) = (Copying(first), Copying(second));
    run(opening, &mut first, &mut second, limits, scratch, meter).await
}

/// As [`copy_both_after`], for streams of the kernel: bulk does not pass through this process.
pub async fn join(
    opening: Vec<u8>,
    first: &mut Stream,
    second: &mut Stream,
    limits: Limits,
    scratch: &Scratch,
    meter: &Meter,
) -> Copied {
    run(opening, first, second, limits, scratch, meter).await
}

async fn run<A: Side, B: Side>(
    opening: Vec<u8>,
    first: &mut A,
    second: &mut B,
    limits: Limits,
    scratch: &Scratch,
    meter: &Meter,
) -> Copied {
    let mut forward = Direction::after(opening);
    let mut backward = Direction::default();
    let mut watch = Watch::new(limits);
    let mut timer = pin!(sleep(watch.every));
    let (mut lingering, mut armed, mut polled) = (false, false, 0);
    let end = poll_fn(|context| {
        // The last end is passed on by closing, which both streams are for.
        forward.is_last = backward.is_done();
        if let Poll::Ready(Err(error)) =
            forward.poll(context, first, second, scratch, &meter.forward)
        {
            return Poll::Ready(End::Failed(error));
        }
        backward.is_last = forward.is_done();
        if let Poll::Ready(Err(error)) =
            backward.poll(context, second, first, scratch, &meter.backward)
        {
            return Poll::Ready(End::Failed(error));
        }
        if forward.is_done() && backward.is_done() {
            return Poll::Ready(End::Closed);
        }
        let only_discarding = (forward.is_done() || forward.is_discarding())
            && (backward.is_done() || backward.is_discarding());
        if only_discarding && !lingering {
            (lingering, armed) = (true, false);
            timer.as_mut().reset(deadline(limits.linger));
        }
        // Who moved something was not woken by the timer, which knows this task already.
        let moved = forward.moved.wrapping_add(backward.moved);
        if armed && moved != polled && !timer.is_elapsed() {
            polled = moved;
            return Poll::Pending;
        }
        armed = true;
        while timer.as_mut().poll(context).is_ready() {
            if lingering {
                return Poll::Ready(End::Closed);
            }
            let is_waited_for = [&forward, &backward]
                .into_iter()
                .any(|way| way.is_done() || way.is_blocked());
            if watch.is_over(moved, is_waited_for) {
                return Poll::Ready(End::Idle);
            }
            timer.as_mut().reset(deadline(watch.every));
        }
        Poll::Pending
    })
    .await;
    Copied {
        forward: forward.moved,
        backward: backward.moved,
        end,
    }
}

/// Adds up the checks in a row that saw nothing move: no clock is read for a byte.
#[derive(Debug)]
struct Watch {
    idle: Option<Duration>,
    stall: Duration,
    every: Duration,
    seen: u64,
    quiet: Duration,
}

impl Watch {
    fn new(limits: Limits) -> Self {
        let idle = limits.idle.unwrap_or(Duration::MAX);
        let stall = limits.stall.min(idle);
        let every = stall.checked_div(CHECKS_PER_LIMIT).unwrap_or(stall);
        Self {
            idle: limits.idle,
            stall,
            every: every.max(Duration::from_millis(1)),
            seen: 0,
            quiet: Duration::ZERO,
        }
    }

    /// One check: whether nothing moved for as long as is allowed.
    fn is_over(&mut self, moved: u64, is_waited_for: bool) -> bool {
        self.quiet = if moved == self.seen {
            self.quiet.saturating_add(self.every)
        } else {
            Duration::ZERO
        };
        self.seen = moved;
        let limit = if is_waited_for {
            Some(self.stall)
        } else {
            self.idle
        };
        limit.is_some_and(|limit| self.quiet >= limit)
    }
}

fn deadline(after: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(after).unwrap_or(now)
}

/// How often within the shorter limit it is looked whether anything moved: a connection ends between
/// one and one and a quarter times that limit after its last byte, or within a quarter of it after the
/// longer one.
const CHECKS_PER_LIMIT: u32 = 4;

#[cfg(test)]
mod tests;
