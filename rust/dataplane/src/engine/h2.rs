//! HTTP/2 (RFC 9113) on one client connection.
//!
//! Frames, header compression and flow control are `h2`'s. Each request becomes a head in the form of
//! HTTP/1 and is judged as every other one ([`head`]); each is a task of its own ([`stream`]). What a
//! client may do to a connection besides asking for something is bounded here ([`meter`]).

mod body;
mod head;
mod linger;
mod meter;
mod stream;
mod wire;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::time::Instant;

use super::connection::Client;
use super::counters::add;
use super::deadline::Deadline;
use super::peer::Peer;
use super::seats::Seat;
use super::settings::Settings;
use super::site::Site;
use crate::certificate::Current;
use meter::Meter;
use wire::{Gathering, Sender, Wire, wire};

/// Bytes of one request, and of all requests of a connection, that a client may be ahead.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one response that wait to be written.
const SEND_BUFFER: usize = 128 * 1024;
/// What a header line counts in a header list besides its text (RFC 9113 §6.5.2), and what it has
/// more than that in the form of HTTP/1.
const LINE_OVERHEAD: usize = 32;
/// How long a connection that was told to end may take to do so once nothing is in flight.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the requests of one connection have in common.
pub(super) struct Link {
    site: Rc<Site>,
    peer: Option<Peer>,
    /// The certificate this connection was shown.
    certificate: Arc<Current>,
    meter: Rc<Meter>,
    /// Requests in flight.
    active: Cell<usize>,
    /// When the last one ended.
    last: Cell<Instant>,
    /// Wakes the connection.
    waker: RefCell<Option<Waker>>,
}

impl Link {
    /// Whether no request is taken for now: what was taken back still costs until its task has ended.
    fn is_full(&self) -> bool {
        let allowed = self.site.settings.h2_streams.saturating_mul(2);
        self.active.get() >= usize::try_from(allowed).unwrap_or(usize::MAX)
    }

    /// Has the connection looked after: something that it waits for has changed.
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// A request in flight, until it is dropped.
struct Active(Rc<Link>);

impl Active {
    fn enter(link: &Rc<Link>) -> Self {
        link.active.set(link.active.get().saturating_add(1));
        Self(Rc::clone(link))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let link = &self.0;
        let was_full = link.is_full();
        link.active.set(link.active.get().saturating_sub(1));
        link.last.set(Instant::now());
        if was_full || link.active.get() == 0 {
            link.wake();
        }
    }
}

/// Serves requests until one side ends the connection.
pub(super) async fn serve(site: Rc<Site>, client: Client) {
    let meter = Rc::new(Meter::new(site.settings.h2_resets));
    let Client {
        stream,
        peer,
        certificate,
    } = client;
    let link = Rc::new(Link {
        site: Rc::clone(&site),
        peer,
        certificate,
        meter: Rc::clone(&meter),
        active: Cell::new(0),
        last: Cell::new(Instant::now()),
        waker: RefCell::default(),
    });
    let (wire, sender) = wire(stream, meter, site.settings.linger);
    // On the heap: the connection has no room for it once it is over.
    let handshake = Box::pin(builder(&site.settings).handshake(wire));
    let limit = site.settings.head_timeout;
    let Ok(Ok(connection)) = Deadline::default().within(limit, handshake).await else {
        return;
    };
    sender.gather();
    let seat = site.seats.take();
    let mut serving = Serving {
        link,
        connection,
        sender,
        seat,
        ending: None,
        is_cut: false,
        requests: 0,
        deadline: Deadline::default(),
    };
    while let Some((request, respond)) = poll_fn(|context| serving.poll(context)).await {
        let active = Active::enter(&serving.link);
        // On the heap: a task would move it twice more, when it is made and when it is over.
        tokio::task::spawn_local(Box::pin(stream::serve(active, request, respond)));
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn builder(settings: &Settings) -> Builder {
    let lines = settings.head.headers.saturating_mul(LINE_OVERHEAD);
    // A head somewhat over the limit is still read, so that it can be answered in our own words.
    let list = settings.head.head.saturating_add(lines).saturating_mul(5) / 4;
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(settings.h2_streams)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol();
    builder
}

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// A connection being served.
struct Serving<'s, T> {
    link: Rc<Link>,
    connection: Connection<Wire<T>, Bytes>,
    sender: Sender<T>,
    seat: Seat<'s>,
    /// When the client was told that no request is taken any more.
    ending: Option<Instant>,
    /// Whether the client asked for too much.
    is_cut: bool,
    /// Requests so far.
    requests: u64,
    deadline: Deadline,
}

impl<T: Gathering> Serving<'_, T> {
    /// The next request; `None` when the connection is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Accepted>> {
        match &mut *self.link.waker.borrow_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        loop {
            if self.ending.is_none() && self.seat.is_called(context) {
                self.farewell();
            }
            if !self.is_cut && self.link.meter.is_flood() {
                add(&self.link.site.counters.shed, 1);
                self.is_cut = true;
                self.ending = Some(Instant::now());
                self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            let polled = if self.link.is_full() {
                self.connection.poll_closed(context).map(|_closed| None)
            } else {
                self.connection.poll_accept(context)
            };
            match polled {
                Poll::Ready(Some(Ok(accepted))) if !self.is_cut => {
                    self.requests = self.requests.saturating_add(1);
                    let limit = self.link.site.settings.keepalive_requests;
                    let is_last = limit.is_some_and(|limit| self.requests >= limit);
                    if is_last && self.ending.is_none() {
                        self.farewell();
                    }
                    return Poll::Ready(Some(accepted));
                }
                Poll::Ready(Some(Ok(_accepted))) => {}
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "an HTTP/2 connection broke off");
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if !self.is_cut && self.link.meter.is_flood() => {}
                Poll::Pending => {
                    if let Poll::Ready(Err(error)) = self.sender.poll(context) {
                        tracing::debug!(%error, "an HTTP/2 connection broke off");
                        return Poll::Ready(None);
                    }
                    let Some(end) = self.end() else {
                        return Poll::Pending;
                    };
                    match self.deadline.poll_at(context, end) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(()) if self.is_idle() => self.farewell(),
                        Poll::Ready(()) => return Poll::Ready(None),
                    }
                }
            }
        }
    }

    /// Tells the client that no other request is taken (RFC 9113 §6.8).
    fn farewell(&mut self) {
        self.ending = Some(Instant::now());
        self.connection.graceful_shutdown();
    }

    /// Whether nothing is wrong but that nothing is asked for.
    fn is_idle(&self) -> bool {
        self.ending.is_none() && self.link.active.get() == 0 && self.link.meter.stalled().is_none()
    }

    /// When the connection has waited for long enough.
    fn end(&self) -> Option<Instant> {
        let settings = &self.link.site.settings;
        let stalled = self.link.meter.stalled();
        let stalled = stalled.and_then(|since| since.checked_add(settings.body_idle));
        let idle = if self.link.active.get() > 0 {
            None
        } else if let Some(since) = self.ending {
            since.max(self.link.last.get()).checked_add(FAREWELL)
        } else {
            self.link.last.get().checked_add(settings.keepalive_idle)
        };
        [stalled, idle].into_iter().flatten().min()
    }
}
