//! Connections to the user process: kept per worker, used again only when the last response ended
//! exactly where its framing said (T-02).

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cloister_transport::{Address, Stream};
use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use super::counters::Counters;
use super::settings::Settings;
use crate::server::traffic::UpstreamUse;

/// Idle connections, the one used last on top.
#[derive(Debug)]
pub(super) struct Pool {
    address: Address,
    connect: Duration,
    /// Connections kept, and for how long at most.
    max_idle: usize,
    max_idle_for: Duration,
    counters: Arc<Counters>,
    idle: RefCell<Vec<(Stream, Instant)>>,
}

/// A connection, and whether it was used before.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: Stream,
    pub(super) is_reused: bool,
}

impl Pool {
    pub(super) fn new(address: Address, settings: &Settings, counters: Arc<Counters>) -> Self {
        Self {
            address,
            connect: settings.upstream_connect,
            max_idle: settings.upstream_idle_connections,
            max_idle_for: settings.upstream_idle,
            counters,
            idle: RefCell::default(),
        }
    }

    /// An idle connection that is still open, or a new one.
    pub(super) async fn take(&self) -> io::Result<Upstream> {
        while let Some((mut stream, since)) = self.pop() {
            if since.elapsed() < self.max_idle_for && is_quiet(&mut stream) {
                self.counters.upstream(UpstreamUse::Reused);
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
        self.counters.upstream(UpstreamUse::New);
        Ok(Upstream {
            stream,
            is_reused: false,
        })
    }

    /// Keeps a connection whose last response has ended.
    pub(super) fn put(&self, stream: Stream) {
        let mut idle = self.idle.borrow_mut();
        // The oldest are at the bottom: what nobody asks for does not stay open.
        let is_over = |(_, since): &(Stream, Instant)| since.elapsed() >= self.max_idle_for;
        while idle.first().is_some_and(is_over) {
            idle.remove(0);
        }
        if idle.len() < self.max_idle {
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
