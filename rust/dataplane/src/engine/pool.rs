//! Connections to the user process: kept per worker, used again only when the last response ended
//! exactly where its framing said (T-02).

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use cloister_transport::{Address, Stream};
use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

/// Idle connections kept by one worker.
const MAX_IDLE: usize = 256;
/// Longest idleness: shorter than the keep-alive of common servers (5 s and more).
const MAX_IDLE_FOR: Duration = Duration::from_secs(4);

/// Idle connections, the one used last on top.
#[derive(Debug)]
pub(super) struct Pool {
    address: Address,
    connect: Duration,
    idle: RefCell<Vec<(Stream, Instant)>>,
}

/// A connection, and whether it was used before.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: Stream,
    pub(super) is_reused: bool,
}

impl Pool {
    pub(super) fn new(address: Address, connect: Duration) -> Self {
        Self {
            address,
            connect,
            idle: RefCell::default(),
        }
    }

    /// An idle connection that is still open, or a new one.
    pub(super) async fn take(&self) -> io::Result<Upstream> {
        while let Some((mut stream, since)) = self.pop() {
            if since.elapsed() < MAX_IDLE_FOR && is_quiet(&mut stream) {
                return Ok(Upstream {
                    stream,
                    is_reused: true,
                });
            }
        }
        self.connect().await
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> io::Result<Upstream> {
        let stream = cloister_transport::connect(&self.address, self.connect).await?;
        Ok(Upstream {
            stream,
            is_reused: false,
        })
    }

    /// Keeps a connection whose last response has ended.
    pub(super) fn put(&self, stream: Stream) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push((stream, Instant::now()));
        }
    }

    fn pop(&self) -> Option<(Stream, Instant)> {
        self.idle.borrow_mut().pop()
    }
}

/// Whether nothing waits to be read: the end of the stream, or bytes that nobody asked for.
fn is_quiet(stream: &mut Stream) -> bool {
    stream.read(&mut [0; 1]).now_or_never().is_none()
}
