//! The end of a connection, such that the client gets to read why.
//!
//! A socket that is closed with bytes in it that nobody read is reset, and a GOAWAY that is on its way
//! is lost with it. So what still comes is read for a moment and forgotten, as on HTTP/1 (RFC 9112
//! §9.6).

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use crate::engine::deadline::Deadline;

/// How many bytes of it.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes read at a time, on the stack.
const PIECE: usize = 4096;

/// What is left of that moment.
#[derive(Debug)]
pub(super) struct Linger {
    limit: Duration,
    deadline: Deadline,
    ends: Option<Instant>,
    read: usize,
}

impl Linger {
    /// One that is over after `limit`, once it began.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            deadline: Deadline::default(),
            ends: None,
            read: 0,
        }
    }

    /// Reads until the client has nothing more to say, or has said enough.
    pub(super) fn poll<T: AsyncRead + Unpin>(
        &mut self,
        stream: &mut T,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        while self.read < LINGER_BYTES {
            let mut piece = [MaybeUninit::uninit(); PIECE];
            let mut buffer = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.read = self.read.saturating_add(buffer.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let now = Instant::now();
                    let after = || now.checked_add(self.limit).unwrap_or(now);
                    let ends = *self.ends.get_or_insert_with(after);
                    return self.deadline.poll_at(context, ends);
                }
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn a_client_that_leaves_is_not_waited_for_and_one_that_stays_is_for_a_second() {
        run(async {
            let (mut mine, mut other) = tokio::io::duplex(64);
            let begun = Instant::now();
            let mut linger = Linger::new(Duration::from_secs(1));
            let reading = poll_fn(|context| linger.poll(&mut mine, context));
            let leaving = async {
                other.write_all(&[0; 500]).await.unwrap();
                drop(other);
            };
            tokio::join!(reading, leaving);
            assert_eq!(begun.elapsed(), Duration::ZERO);

            let (mut mine, _stays) = tokio::io::duplex(64);
            let mut linger = Linger::new(Duration::from_secs(1));
            poll_fn(|context| linger.poll(&mut mine, context)).await;
            assert_eq!(begun.elapsed().as_secs(), 1);
        });
    }

    #[test]
    fn t03_a_client_that_sends_on_and_on_is_left_at_some_point() {
        run(async {
            let mut endless = tokio::io::repeat(1);
            let mut linger = Linger::new(Duration::from_secs(1));
            poll_fn(|context| linger.poll(&mut endless, context)).await;
            assert_eq!(linger.read, LINGER_BYTES);
        });
    }
}
