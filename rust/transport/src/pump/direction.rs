//! One direction of a pump: read, write, keep what was not taken, pass the end on.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::side::Side;
use super::splice::Lease;
use super::{SCRATCH_BYTES, Scratch};

#[derive(Debug, Default)]
pub(super) struct Direction {
    state: State,
    /// What the writer did not take yet; empty most of the time.
    kept: Vec<u8>,
    /// How much of `kept` was written.
    written: usize,
    pub(super) moved: u64,
    /// The other direction is over.
    pub(super) is_last: bool,
    /// Times that a read filled the scratch buffer, since one that was short.
    full_reads: u32,
    /// The pipe, while this direction is spliced.
    lease: Option<Lease>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Copying,
    /// The reader ended and all was written; the end is to be passed on.
    Ending,
    /// The writer takes no more; what is read is thrown away.
    Discarding,
    Done,
}

impl Direction {
    /// A direction that writes `opening` before it reads.
    pub(super) fn after(opening: Vec<u8>) -> Self {
        Self {
            kept: opening,
            ..Self::default()
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether there are bytes that the writer did not take.
    pub(super) fn is_blocked(&self) -> bool {
        !self.kept.is_empty() || self.lease.as_ref().is_some_and(|lease| !lease.is_empty())
    }

    pub(super) fn is_discarding(&self) -> bool {
        self.state == State::Discarding
    }

    /// Moves what can be moved. Ready when this direction is over: `Ok` after its end was passed on,
    /// `Err` when the reader failed.
    pub(super) fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        scratch: &Scratch,
        meter: &AtomicU64,
    ) -> Poll<io::Result<()>>
    where
        R: Side,
        W: Side,
    {
        for _ in 0..READS_PER_TURN {
            match self.state {
                State::Copying if self.lease.is_some() => {
                    ready!(self.poll_spliced(context, reader, writer, meter))?;
                }
                State::Copying => {
                    ready!(self.poll_kept(context, writer));
                    if self.state == State::Copying {
                        let step = scratch
                            .with(|buffer| self.poll_step(context, reader, writer, buffer, meter));
                        ready!(step)?;
                    }
                    let is_bulk = self.full_reads >= FULL_READS_BEFORE_SPLICE;
                    if is_bulk && reader.spliceable().is_some() && writer.spliceable().is_some() {
                        self.full_reads = 0;
                        self.lease = scratch.lend_pipe();
                    }
                }
                State::Ending => {
                    // A stream of the kernel that is closed next says its end then.
                    if !self.is_last || writer.spliceable().is_none() {
                        // A peer that is gone already needs no end of stream.
                        drop(ready!(Pin::new(&mut *writer).poll_shutdown(context)));
                    }
                    self.state = State::Done;
                }
                State::Discarding => {
                    let step = scratch.with(|buffer| {
                        let mut buffer = ReadBuf::new(buffer);
                        let read = ready!(Pin::new(&mut *reader).poll_read(context, &mut buffer));
                        Poll::Ready(read.is_ok() && !buffer.filled().is_empty())
                    });
                    if !ready!(step) {
                        self.state = State::Done;
                    }
                }
                State::Done => return Poll::Ready(Ok(())),
            }
        }
        // One busy pair must not keep the others of this worker waiting.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is kept.
    fn poll_kept<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<()> {
        while let Some(rest) = self.kept.get(self.written..)
            && !rest.is_empty()
        {
            match ready!(Pin::new(&mut *writer).poll_write(context, rest)) {
                Ok(count) if count > 0 => self.written = self.written.saturating_add(count),
                _ => {
                    self.state = State::Discarding;
                    break;
                }
            }
        }
        self.kept = Vec::new();
        self.written = 0;
        Poll::Ready(())
    }

    /// Reads once and writes what was read, keeping the rest.
    fn poll_step<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        buffer: &mut [u8],
        meter: &AtomicU64,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(reader).poll_read(context, &mut buffer))?;
        let mut rest = buffer.filled();
        if rest.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        self.full_reads = match rest.len() {
            SCRATCH_BYTES => self.full_reads.saturating_add(1),
            // What was left behind a full one.
            LONG_BYTES.. => self.full_reads,
            _ => 0,
        };
        self.count(rest.len(), meter);
        while !rest.is_empty() {
            match Pin::new(&mut *writer).poll_write(context, rest) {
                Poll::Ready(Ok(count)) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
                Poll::Ready(_) => {
                    self.state = State::Discarding;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    self.kept = rest.to_vec();
                    self.written = 0;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Moves once through the pipe: out of it when something is inside, else into it.
    fn poll_spliced<R: Side, W: Side>(
        &mut self,
        context: &mut Context<'_>,
        reader: &R,
        writer: &W,
        meter: &AtomicU64,
    ) -> Poll<io::Result<()>> {
        let (Some(lease), Some(from), Some(to)) = (
            self.lease.as_mut(),
            reader.spliceable(),
            writer.spliceable(),
        ) else {
            return Poll::Ready(Ok(()));
        };
        if !lease.is_empty() {
            if ready!(lease.poll_empty_into(context, to)).is_err() {
                self.lease = None;
                self.state = State::Discarding;
            }
            return Poll::Ready(Ok(()));
        }
        if lease.is_over() {
            self.lease = None;
            return Poll::Ready(Ok(()));
        }
        let count = ready!(lease.poll_fill_from(context, from))?;
        if count == 0 {
            self.lease = None;
            self.state = State::Ending;
        } else {
            self.count(count, meter);
        }
        Poll::Ready(Ok(()))
    }

    fn count(&mut self, bytes: usize, meter: &AtomicU64) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.moved = self.moved.saturating_add(bytes);
        meter.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Reads of one direction before the worker's other connections get their turn: 1 MiB.
const READS_PER_TURN: u32 = 16;
/// A read of fewer bytes is a short one: there is little to move.
pub(super) const LONG_BYTES: usize = SCRATCH_BYTES / 4;
/// A direction is spliced after this many: splicing small messages costs a quarter more than copying.
const FULL_READS_BEFORE_SPLICE: u32 = 3;
