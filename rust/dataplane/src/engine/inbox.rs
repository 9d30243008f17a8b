//! Bytes that were read and not used yet.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Room made for one read.
const READ_BYTES: usize = 16 * 1024;
/// Room held by a connection that waits for a request.
const WAITING_BYTES: usize = 1024;
/// Room made for one read of a body.
const BULK_BYTES: usize = 64 * 1024;

/// A buffer that is filled at its end and used from its start.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Inbox {
    /// What is not used yet.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.bytes.len()
    }

    /// Uses `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Gives all memory back: a connection that has waited for a while costs its socket.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Keeps no more memory than so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        self.bytes.shrink_to(bytes);
    }

    /// Memory it has, in bytes.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.bytes.capacity()
    }

    /// Reads once; 0 at the end of the stream.
    pub(super) async fn fill<R: AsyncRead + Unpin>(&mut self, from: &mut R) -> io::Result<usize> {
        self.fill_with(from, READ_BYTES).await
    }

    /// Reads once, into as little room as a connection that waits should cost.
    pub(super) async fn fill_small<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
    ) -> io::Result<usize> {
        self.fill_with(from, WAITING_BYTES).await
    }

    /// Reads once, with the room that a body wants.
    pub(super) async fn fill_bulk<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
    ) -> io::Result<usize> {
        self.fill_with(from, BULK_BYTES).await
    }

    async fn fill_with<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        room: usize,
    ) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(room);
        from.read_buf(&mut self.bytes).await
    }
}
