//! A connection whose protocol was switched: its session, and the record of it.
//!
//! Whether the protocol was switched is decided in [`super::download`], never here;
//! [`crate::engine::tunnel`] moves the bytes.

use std::cell::Cell;

use tokio::time::Instant;

use super::Conversation;
use crate::engine::counters::{Gauge, add};
use crate::engine::log::Entry;
use crate::engine::outcome::Totals;
use crate::engine::pool::Upstream;
use crate::engine::site::Site;
use crate::engine::tunnel::{End, Tunnel};

/// A session, from the switch to its end. Its record is written when it is dropped, so that one that
/// is broken off with the engine has one too.
pub(super) struct Session<'s> {
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
    pub(super) fn new(
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

impl Conversation<'_> {
    /// Moves bytes until the tunnel ends. What is left in the inbox is its beginning.
    pub(super) async fn tunnel(&mut self, mut upstream: Upstream, session: Session<'_>) {
        // There is no other head on this connection.
        (self.head_bytes, self.out) = (Vec::new(), Vec::new());
        let tunnel = Tunnel {
            settings: &self.site.settings,
            received: &session.received,
            sent: &session.sent,
        };
        let inbox = std::mem::take(&mut self.inbox);
        let ended = tunnel
            .run(inbox, &mut self.client.stream, &mut upstream.stream)
            .await;
        self.has_ended = ended.client_ended;
        self.is_broken = ended.how == End::Cut;
    }
}
