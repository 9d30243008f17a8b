//! Pipes to splice through, pooled per worker.
//!
//! Making and sizing a pipe costs about 5 µs (performance.md §3.1), so a pipe that was emptied is
//! kept for the next direction that moves much. A pipe with bytes left in it is closed.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use super::direction::LONG_BYTES;
use crate::stream::Stream;

/// The pipes of one worker.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: RefCell<Vec<Pipe>>,
    lent: Cell<usize>,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

/// A pipe that one direction has; it goes back to the pool when this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pipe: Option<Pipe>,
    inside: usize,
    /// The last filling was short: there is little to move.
    is_over: bool,
    pool: Rc<Pool>,
}

impl Pool {
    /// A pipe, or `None` when there are [`MAX_LENT`] or the system gives none: copying goes on.
    pub(super) fn lend(pool: &Rc<Self>) -> Option<Lease> {
        if pool.lent.get() >= MAX_LENT {
            return None;
        }
        let idle = pool.idle.borrow_mut().pop();
        let pipe = match idle {
            Some(pipe) => pipe,
            None => Pipe::new().ok()?,
        };
        pool.lent.set(pool.lent.get().saturating_add(1));
        Some(Lease {
            pipe: Some(pipe),
            inside: 0,
            is_over: false,
            pool: Rc::clone(pool),
        })
    }
}

#[cfg(test)]
impl Pool {
    pub(super) fn idle_count(&self) -> usize {
        self.idle.borrow().len()
    }

    pub(super) fn lent_count(&self) -> usize {
        self.lent.get()
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Beyond `fs.pipe-user-pages-soft` a user keeps the size that pipes are made with.
        let capacity = fcntl_setpipe_size(&write, PIPE_BYTES).unwrap_or(DEFAULT_PIPE_BYTES);
        Ok(Self {
            read,
            write,
            capacity,
        })
    }
}

impl Lease {
    pub(super) fn is_empty(&self) -> bool {
        self.inside == 0
    }

    /// Empty, and not worth filling again.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Fills the empty pipe; 0 at the end of the stream.
    pub(super) fn poll_fill_from(
        &mut self,
        context: &mut Context<'_>,
        from: &Stream,
    ) -> Poll<io::Result<usize>> {
        let Some(pipe) = &self.pipe else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let count = ready!(from.poll_io(context, Interest::READABLE, || {
            moved(from, &pipe.write, pipe.capacity)
        }))?;
        self.inside = count;
        self.is_over = count < LONG_BYTES;
        Poll::Ready(Ok(count))
    }

    /// Moves what is inside, or a part of it.
    pub(super) fn poll_empty_into(
        &mut self,
        context: &mut Context<'_>,
        to: &Stream,
    ) -> Poll<io::Result<()>> {
        let Some(pipe) = &self.pipe else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let count = ready!(to.poll_io(context, Interest::WRITABLE, || {
            moved(&pipe.read, to, self.inside)
        }))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.inside = self.inside.saturating_sub(count);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get().saturating_sub(1));
        let mut idle = self.pool.idle.borrow_mut();
        if self.inside == 0
            && idle.len() < MAX_IDLE
            && let Some(pipe) = self.pipe.take()
        {
            idle.push(pipe);
        }
    }
}

fn moved(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(splice(from, None, to, None, length, flags)?)
}

/// Size of a pipe, in bytes: the most an unprivileged user gets (`fs.pipe-max-size`).
const PIPE_BYTES: usize = 1 << 20;
/// Size of a pipe that was not sized (pipe(7)).
const DEFAULT_PIPE_BYTES: usize = 64 * 1024;
/// Pipes of one worker in use; each has two descriptors.
const MAX_LENT: usize = 256;
/// Pipes of one worker kept for later.
const MAX_IDLE: usize = 16;
