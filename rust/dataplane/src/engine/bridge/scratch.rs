//! Memory that a response needs, kept by the worker from one to the next.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use bytes::BytesMut;
use cloister_http::ResponseHead;

use crate::engine::deadline::Deadline;

/// Kept by one worker at most, and the most that each keeps, in bytes.
const MAX_KEPT: usize = 256;
const KEPT_BYTES: usize = 16 * 1024;

/// Memory of one response.
#[derive(Debug, Default)]
pub(in crate::engine) struct Scratch {
    pub(in crate::engine) head: ResponseHead,
    /// The request head on its way to the user process.
    pub(in crate::engine) out: Vec<u8>,
    /// Its timer, which is left where it is.
    pub(in crate::engine) deadline: Deadline,
}

/// What nobody uses at the moment.
#[derive(Debug, Default)]
pub(in crate::engine) struct Bridges {
    scratches: RefCell<Vec<Scratch>>,
    buffers: RefCell<Vec<BytesMut>>,
}

impl Bridges {
    /// Memory for one response, which comes back when it is dropped.
    pub(in crate::engine) fn scratch(&self) -> Lent<'_> {
        Lent {
            scratch: self.scratches.borrow_mut().pop().unwrap_or_default(),
            bridges: self,
        }
    }

    /// A buffer to read into.
    pub(in crate::engine) fn buffer(&self) -> BytesMut {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps a buffer that nothing of is used.
    pub(in crate::engine) fn put(&self, mut buffer: BytesMut) {
        let mut kept = self.buffers.borrow_mut();
        buffer.clear();
        if kept.len() < MAX_KEPT && (1..=KEPT_BYTES).contains(&buffer.capacity()) {
            kept.push(buffer);
        }
    }
}

/// Memory that is lent.
#[derive(Debug)]
pub(in crate::engine) struct Lent<'s> {
    scratch: Scratch,
    bridges: &'s Bridges,
}

impl Deref for Lent<'_> {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.scratch
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Scratch {
        &mut self.scratch
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut kept = self.bridges.scratches.borrow_mut();
        if kept.len() < MAX_KEPT {
            let mut scratch = std::mem::take(&mut self.scratch);
            scratch.out.clear();
            scratch.out.shrink_to(KEPT_BYTES);
            kept.push(scratch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lent_comes_back_without_what_was_in_it() {
        let bridges = Bridges::default();
        let mut lent = bridges.scratch();
        lent.out.extend_from_slice(b"secret");
        drop(lent);
        assert_eq!(bridges.scratches.borrow().len(), 1);
        assert!(bridges.scratch().out.is_empty());
        bridges.put(BytesMut::from(&b"secret"[..]));
        assert!(bridges.buffer().is_empty());
        bridges.put(BytesMut::with_capacity(KEPT_BYTES + 1));
        assert_eq!(bridges.buffer().capacity(), 0);
    }
}
