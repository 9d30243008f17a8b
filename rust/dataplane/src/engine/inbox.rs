//! Bytes that were read and not used yet.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Room made for one read.
const READ_BYTES: usize = 16 * 1024;
/// Room held by a connection that waits for a request.
const WAITING_BYTES: usize = 1024;
/// Room made for one read of a body: 64 KiB, and some for its head.
pub(super) const BULK_BYTES: usize = 68 * 1024;

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

    /// Reads once, on the way to `length` bytes: the room grows with what has come, at most to twice
    /// of it, and never beyond `length` but for what one read brings.
    pub(super) async fn fill_towards<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        length: usize,
    ) -> io::Result<usize> {
        self.move_to_front();
        let here = self.bytes.len();
        if here == self.bytes.capacity() {
            let wanted = here.saturating_mul(2).min(length).max(BULK_BYTES);
            self.bytes.reserve_exact(wanted.saturating_sub(here).max(1));
        }
        from.read_buf(&mut self.bytes).await
    }

    async fn fill_with<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        room: usize,
    ) -> io::Result<usize> {
        self.move_to_front();
        self.bytes.reserve(room);
        from.read_buf(&mut self.bytes).await
    }

    fn move_to_front(&mut self) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

/// Memory that a connection keeps from one request to the next.
pub(super) const KEPT_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Doubling past the end would hold a body of 48 MiB in 64.
    #[tokio::test]
    async fn a_body_takes_no_more_room_than_its_length() {
        const LENGTH: usize = 3 * 1024 * 1024 + 5;
        let mut from = tokio::io::repeat(b'x');
        let mut inbox = Inbox::default();
        let mut most = 0;
        while inbox.rest().len() < LENGTH {
            inbox.fill_towards(&mut from, LENGTH).await.unwrap();
            most = most.max(inbox.room());
        }
        assert_eq!((inbox.rest().len(), most), (LENGTH, LENGTH));
    }

    /// A length is a promise of the peer's: it takes no memory before bytes are there.
    #[tokio::test]
    async fn a_length_alone_takes_no_room() {
        let mut from: &[u8] = b"abc";
        let mut inbox = Inbox::default();
        inbox.fill_towards(&mut from, 1 << 40).await.unwrap();
        assert_eq!(inbox.rest(), b"abc");
        assert!(inbox.room() <= BULK_BYTES, "{}", inbox.room());
    }
}
