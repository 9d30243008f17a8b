//! Writing two pieces as if they were one: a head, and a body that lies where it was read.

use std::io::{self, IoSlice};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// A body from this size on, in bytes, is written from where it lies; to copy a shorter one behind
/// its head costs less than to handle two pieces.
pub(super) const WORTH_BYTES: usize = 4 * 1024;

/// Writes `first` and then `second`, both in one call where the stream takes them.
///
/// # Errors
///
/// The stream's; [`io::ErrorKind::WriteZero`] when it takes nothing more.
pub(super) async fn write_both<W>(to: &mut W, first: &[u8], second: &[u8]) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    if second.is_empty() {
        return to.write_all(first).await;
    }
    let mut slices = [IoSlice::new(first), IoSlice::new(second)];
    let mut left = slices.as_mut_slice();
    // Pieces of no length are passed over, also the first one.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        let count = to.write_vectored(left).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut left, count);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// Takes so many bytes at a time, from the first piece alone or from all of them.
    struct Narrow {
        taken: Vec<u8>,
        at_a_time: usize,
        is_vectored: bool,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.at_a_time);
            self.taken.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let first = slices.first().map_or(0, |slice| slice.len());
            let count = if self.is_vectored { all.len() } else { first };
            self.as_mut().poll_write(context, &all[..count])
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A short write ends anywhere: inside a piece, between them, or before anything.
    #[tokio::test]
    async fn both_pieces_arrive_whole_however_little_is_taken_at_a_time() {
        let (first, second) = (&b"0123456"[..], &b"789abcdef"[..]);
        for is_vectored in [false, true] {
            for (first, second) in [(first, second), (b"", second), (first, b""), (b"", b"")] {
                for at_a_time in 1..=20 {
                    let mut narrow = Narrow {
                        taken: Vec::new(),
                        at_a_time,
                        is_vectored,
                    };
                    write_both(&mut narrow, first, second).await.unwrap();
                    assert_eq!(narrow.taken, [first, second].concat());
                }
            }
        }
        let mut closed = Narrow {
            taken: Vec::new(),
            at_a_time: 0,
            is_vectored: true,
        };
        let error = write_both(&mut closed, first, second).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
