//! A WebSocket session, from the switch of protocols to its end: its bytes, and the record of it.
//!
//! What switches the protocol is decided where responses are read; [`super::tunnel`] moves the bytes.

use std::cell::Cell;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::counters::{Gauge, add};
use super::inbox::Inbox;
use super::log::Entry;
use super::outcome::Totals;
use super::site::Site;
use super::tunnel::{Ended, Tunnel};

/// A session, from the switch to its end. Its record is written when it is dropped, so that one that
/// is broken off with the engine has one too.
pub(in crate::engine) struct Session<'s> {
    site: &'s Site,
    entry: Option<Entry>,
    totals: Totals,
    begun: Instant,
    /// Bytes of the tunnel from the client, and to it.
    received: Cell<u64>,
    sent: Cell<u64>,
    _open: Gauge<'s>,
}

impl<'s> Session<'s> {
    /// `totals` and `begun` are those of the handshake.
    pub(in crate::engine) fn new(
        site: &'s Site,
        entry: Option<Entry>,
        totals: Totals,
        begun: Instant,
    ) -> Self {
        add(&site.counters.websockets, 1);
        Self {
            site,
            entry,
            totals,
            begun,
            received: Cell::new(0),
            sent: Cell::new(0),
            _open: Gauge::enter(&site.counters.active_websockets),
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let totals = &mut self.totals;
        totals.bytes_in = totals.bytes_in.saturating_add(self.received.get());
        totals.bytes_out = totals.bytes_out.saturating_add(self.sent.get());
        totals.count(&self.site.counters);
        if let (Some(sink), Some(entry)) = (&self.site.sink, self.entry.take()) {
            entry.end(totals, self.begun.elapsed(), sink);
        }
    }
}

impl Session<'_> {
    /// Moves bytes until the tunnel ends. `inbox` has what came from the client before.
    pub(in crate::engine) async fn run<C, P>(
        self,
        inbox: Inbox,
        client: &mut C,
        process: &mut P,
    ) -> Ended
    where
        C: AsyncRead + AsyncWrite + Unpin,
        P: AsyncRead + AsyncWrite + Unpin,
    {
        let tunnel = Tunnel {
            settings: &self.site.settings,
            received: &self.received,
            sent: &self.sent,
        };
        tunnel.run(inbox, client, process).await
    }
}
