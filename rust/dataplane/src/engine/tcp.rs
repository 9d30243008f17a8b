//! `[service] protocol = "tcp"`: what is inside TLS passes to the user process, both ways, unread.
//!
//! A session begins when the handshake is over. The user process is connected at once, because it may
//! be the one that speaks first. There is no sniffing and no authentication: the configuration allows
//! neither an API key nor another protocol beside this one. Where an answer would be 503 or 502, the
//! connection is closed without a close-notify, so that no client takes it for an empty answer; so it
//! is when the user process breaks off. A client that breaks off without a close-notify is a reset to
//! the user process, because anybody on the way can end a TCP connection (RFC 8446 §6.1).

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::connection::Client;
use super::counters::{Gauge, add};
use super::inbox::Inbox;
use super::log::SessionEntry;
use super::site::Site;
use super::tunnel::{End, Tunnel};

/// Serves a session to its end.
pub(super) async fn serve(site: &Site, mut client: Client) {
    let session = Session::begin(site, &client);
    if !site.takes_sessions() {
        add(&site.counters.refused, 1);
        return;
    }
    let mut process = match site.pool.connect().await {
        Ok(upstream) => upstream.stream,
        Err(error) => {
            add(&site.counters.refused, 1);
            tracing::debug!(%error, "the user process takes no connection");
            return;
        }
    };
    let tunnel = Tunnel {
        settings: &site.settings,
        received: &session.received,
        sent: &session.sent,
    };
    let ended = tunnel
        .run(Inbox::default(), &mut client.stream, &mut process)
        .await;
    match ended.how {
        End::Cut => process.reset_on_close(),
        End::Quiet | End::Whole => {
            drop(process);
            // Nobody is left to tell.
            let _ended = timeout(LINGER, farewell(&mut client, ended.client_ended)).await;
        }
    }
}

/// Says the end, and reads for a moment, so that the last bytes to a client that is still sending are
/// not lost to a reset.
async fn farewell(client: &mut Client, client_ended: bool) -> io::Result<()> {
    client.stream.shutdown().await?;
    let mut left = LINGER_BYTES;
    let mut sink = vec![0; SINK_BYTES];
    while !client_ended && left > 0 {
        match client.stream.read(&mut sink).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

/// A session, from the handshake to its end. Its record is written when it is dropped, so that one
/// that is broken off with the engine has one too.
struct Session<'s> {
    site: &'s Site,
    entry: Option<SessionEntry>,
    begun: Instant,
    /// Bytes from the client, and to it, inside TLS.
    received: Cell<u64>,
    sent: Cell<u64>,
    _open: Gauge<'s>,
}

impl<'s> Session<'s> {
    fn begin(site: &'s Site, client: &Client) -> Self {
        add(&site.counters.sessions, 1);
        let peer = client.peer.as_ref();
        let begin = |_| SessionEntry::begin(site, &site.context_id(), peer);
        Self {
            site,
            entry: site.sink.as_ref().map(begin),
            begun: Instant::now(),
            received: Cell::new(0),
            sent: Cell::new(0),
            _open: Gauge::enter(&site.counters.active_sessions),
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let (received, sent) = (self.received.get(), self.sent.get());
        add(&self.site.counters.bytes_in, received);
        add(&self.site.counters.bytes_out, sent);
        if let (Some(sink), Some(entry)) = (&self.site.sink, self.entry.take()) {
            entry.end(received, sent, self.begun.elapsed(), sink);
        }
    }
}

/// How long and how much a session that is over is still read.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;
const SINK_BYTES: usize = 4096;
