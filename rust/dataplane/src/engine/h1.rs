//! HTTP/1 on one client connection: heads in, requests one after the other, answers out.

mod attest;
mod bridged;
mod download;
mod exchange;
mod upload;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use cloister_http::{HeadSearch, RequestFraming, RequestHead};
use cloister_wire::config::Protocol;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::attest::is_for as is_attestation;
use super::bridge::Passed;
use super::connection::Client;
use super::counters::{Gauge, add};
use super::deadline::{Deadline, Elapsed};
use super::inbox;
use super::log;
use super::outcome::{Fault, Totals};
use super::refusal::Refusal;
use super::seats::Seat;
use super::session::Session;
use super::site::{self, Site};
use super::tunnel::End;
pub(super) use download::Scratches;
use exchange::Exchanged;
use inbox::Inbox;

/// A connection and the request on it.
struct Conversation<'s> {
    site: &'s Site,
    client: Client,
    inbox: Inbox,
    head: RequestHead,
    /// The bytes that `head` points into.
    head_bytes: Vec<u8>,
    /// What is being written: kept for its memory.
    out: Vec<u8>,
    /// Whether an answer broke off, or the client reset the connection: it gets no farewell.
    is_broken: bool,
    /// Requests so far.
    requests: u64,
    /// Whether the client has ended its side.
    has_ended: bool,
    deadline: Deadline,
    seat: Seat<'s>,
}

enum Next {
    Closed,
    Head,
    Refused(Refusal),
}

/// Serves requests until one side ends it.
pub(super) async fn serve(site: &Site, client: Client) {
    let mut conversation = Conversation {
        site,
        client,
        inbox: Inbox::default(),
        head: RequestHead::default(),
        head_bytes: Vec::new(),
        out: Vec::new(),
        is_broken: false,
        requests: 0,
        has_ended: false,
        deadline: Deadline::default(),
        seat: site.seats.take(),
    };
    let mut left = usize::MAX;
    loop {
        let is_kept = match conversation.next_head().await {
            Next::Closed => break,
            Next::Head => conversation.request().await,
            Next::Refused(refusal) => {
                left = AFTER_NO_HEAD;
                conversation.refuse_head(&refusal).await;
                false
            }
        };
        if !is_kept {
            break;
        }
    }
    // Without a close-notify the end does not look meant: to a client of HTTP/1.0 nothing else tells
    // an answer that broke off from a whole one.
    if !conversation.is_broken {
        conversation.close(left).await;
    }
}

impl Conversation<'_> {
    /// Waits for the next request head.
    async fn next_head(&mut self) -> Next {
        let mut search = HeadSearch::default();
        let (mut has_begun, mut skips_blank) = (false, true);
        self.deadline.forget();
        loop {
            if self.inbox.is_empty() && !has_begun {
                if !self.wait_idle().await {
                    return Next::Closed;
                }
                self.deadline.forget();
            }
            has_begun = true;
            if skips_blank && self.inbox.rest().starts_with(b"\r\n") {
                // One empty line in front of a request line is passed over (RFC 9112 §2.2).
                self.inbox.consume(2);
                skips_blank = false;
                search = HeadSearch::default();
            }
            let limits = &self.site.settings.head;
            match self.head.parse(self.inbox.rest(), limits, &mut search) {
                Err(error) => return Next::Refused(Refusal::from(error)),
                Ok(true) => break,
                Ok(false) => {}
            }
            let limit = self.site.settings.head_timeout;
            let fill = self.inbox.fill(&mut self.client.stream);
            match self.deadline.still_within(limit, fill).await {
                Err(Elapsed) => {
                    return Next::Refused(Refusal::new(408, "the request head took too long"));
                }
                Ok(Ok(count)) if count > 0 => {}
                Ok(_) => {
                    self.has_ended = true;
                    return Next::Closed;
                }
            }
        }
        let length = self.head.length;
        self.head_bytes.clear();
        self.head_bytes
            .extend_from_slice(self.inbox.rest().get(..length).unwrap_or_default());
        self.inbox.consume(length);
        Next::Head
    }

    /// Waits for the first byte of a request; false when the connection is to be closed.
    ///
    /// A drain closes a connection that waits for another request. One that has not asked for anything
    /// yet was opened to ask: its client would take the end for a failure, so it has a moment.
    async fn wait_idle(&mut self) -> bool {
        let is_fresh = self.requests == 0;
        if self.site.is_draining() && !is_fresh {
            return false;
        }
        let limit = self.site.settings.keepalive_idle;
        let Self {
            client,
            inbox,
            head_bytes,
            out,
            deadline,
            seat,
            has_ended,
            is_broken,
            ..
        } = self;
        let filled = async {
            // A busy connection keeps its buffers, one that waits longer gives them back.
            let soon = limit.min(BUSY);
            if let Ok(filled) = deadline.within(soon, inbox.fill(&mut client.stream)).await {
                *is_broken = is_reset(&filled);
                *has_ended = !filled.is_ok_and(|count| count > 0);
                return !*has_ended;
            }
            inbox.release();
            *head_bytes = Vec::new();
            *out = Vec::new();
            let fill = inbox.fill_small(&mut client.stream);
            let filled = deadline.within(limit.saturating_sub(soon), fill).await;
            *has_ended = matches!(filled, Ok(Ok(0) | Err(_)));
            matches!(filled, Ok(Ok(count)) if count > 0)
        };
        let mut filled = pin!(filled);
        let until_drain = poll_fn(|context| match filled.as_mut().poll(context) {
            Poll::Pending if seat.is_called(context) => Poll::Ready(None),
            polled => polled.map(Some),
        });
        match until_drain.await {
            Some(is_filled) => is_filled,
            None if is_fresh => tokio::time::timeout(FIRST_REQUEST, filled)
                .await
                .unwrap_or(false),
            None => false,
        }
    }

    /// Answers one request; false when the connection is to be closed.
    async fn request(&mut self) -> bool {
        let site = self.site;
        add(&site.counters.requests, 1);
        let _active = Gauge::enter(&site.counters.active_requests);
        self.requests = self.requests.saturating_add(1);
        let limit = site.settings.keepalive_requests;
        self.head.is_persistent &= limit.is_none_or(|limit| self.requests < limit);
        let context = site.context_id();
        let begun = Instant::now();
        if is_attestation(&self.head, &self.head_bytes) {
            let (status, is_kept) = self.attest(&context).await;
            site.counters.answered(status, begun.elapsed());
            let sent = u64::try_from(self.out.len()).unwrap_or(u64::MAX);
            add(&site.counters.bytes_out, sent);
            return is_kept;
        }
        let mut entry = site.sink.as_ref().map(|_| {
            log::Entry::begin(
                site,
                &self.head,
                &self.head_bytes,
                &context,
                self.client.peer.as_ref(),
            )
        });
        let mut totals = Totals::default();
        let span = site::span(&context);
        let outcome = if site.config.service.protocol == Protocol::H2c {
            // On the heap: a connection that needs no bridge has no room for it.
            let bridge = self.bridge(&context, &mut totals, entry.as_mut());
            let bridged = Box::pin(bridge.instrument(span)).await;
            bridged.map(|(passed, is_kept)| match passed {
                Passed::Switched(process) => Exchanged::Switched(process),
                Passed::Whole { .. } => Exchanged::Answered { is_kept },
            })
        } else {
            let exchange = self.exchange(&context, &mut totals, entry.as_mut());
            exchange.instrument(span).await
        };
        let is_kept = match outcome {
            Ok(Exchanged::Answered { is_kept }) => is_kept,
            Ok(Exchanged::Switched(mut process)) => {
                site.counters.answered(totals.status, begun.elapsed());
                // There is no other head on this connection.
                (self.head_bytes, self.out) = (Vec::new(), Vec::new());
                let session = Session::new(site, entry, totals, begun);
                let inbox = std::mem::take(&mut self.inbox);
                // On the heap: a connection that is never switched has no room for it.
                let run = Box::pin(session.run(inbox, &mut self.client.stream, &mut process));
                let ended = run.await;
                self.has_ended = ended.client_ended;
                self.is_broken = ended.how == End::Cut;
                return false;
            }
            Err(Fault::Refused(refusal)) => {
                if let Some(entry) = &mut entry {
                    entry.answered_here();
                }
                totals.status = refusal.status;
                let is_kept = self.refuse(&refusal, &context).await;
                totals.bytes_out = u64::try_from(self.out.len()).unwrap_or(u64::MAX);
                is_kept
            }
            Err(Fault::Broken) => {
                self.is_broken = true;
                false
            }
        };
        totals.count(&site.counters);
        let elapsed = begun.elapsed();
        site.counters.answered(totals.status, elapsed);
        if let (Some(sink), Some(entry)) = (&site.sink, entry) {
            entry.end(&totals, elapsed, sink);
        }
        is_kept
    }

    /// Answers a request that is not forwarded; true when the connection can go on.
    async fn refuse(&mut self, refusal: &Refusal, context: &[u8; 32]) -> bool {
        self.site.counters.refuse(refusal);
        site::span(context).in_scope(|| tracing::debug!(%refusal, "refused"));
        let is_kept = refusal.keeps_connection
            && self.head.is_persistent
            && self.skip_small_body()
            && !self.site.is_draining();
        let is_head = self.head.method.of(&self.head_bytes) == b"HEAD";
        self.out.clear();
        refusal.write(context, is_kept, is_head, &mut self.out);
        self.send().await && is_kept
    }

    /// Answers a head that could not be parsed. It is logged nowhere: there is nothing to say of it.
    async fn refuse_head(&mut self, refusal: &Refusal) {
        add(&self.site.counters.requests, 1);
        self.site.counters.refuse(refusal);
        self.site.counters.answered(refusal.status, Duration::ZERO);
        let context = self.site.context_id();
        site::span(&context).in_scope(|| tracing::debug!(%refusal, "refused"));
        self.out.clear();
        refusal.write(&context, false, false, &mut self.out);
        self.send().await;
    }

    /// Passes over a body that is already here; false when there is more of it to come.
    fn skip_small_body(&mut self) -> bool {
        match self.head.framing {
            RequestFraming::None => true,
            RequestFraming::Chunked => false,
            RequestFraming::Length(length) => {
                let here = usize::try_from(length).is_ok_and(|l| l <= self.inbox.rest().len());
                if here && !self.head.expects_continue {
                    self.inbox
                        .consume(usize::try_from(length).unwrap_or(usize::MAX));
                    return true;
                }
                false
            }
        }
    }

    /// Writes `out` to the client; false when it is gone or too slow.
    async fn send(&mut self) -> bool {
        let stream = &mut self.client.stream;
        let write = async {
            stream.write_all(&self.out).await?;
            stream.flush().await
        };
        let limit = self.site.settings.body_idle;
        matches!(self.deadline.within(limit, write).await, Ok(Ok(())))
    }

    /// Ends the connection: close-notify, then reads on, so that an answer to a request that is
    /// still being sent is not lost to a reset (RFC 9112 §9.6). What comes is dropped as it is:
    /// nobody decrypts it.
    ///
    /// `left` is how many bytes of it.
    async fn close(mut self, mut left: usize) {
        let pause = self.site.settings.linger;
        let shutdown = self.client.stream.shutdown();
        let is_told = matches!(self.deadline.within(pause, shutdown).await, Ok(Ok(())));
        if self.has_ended || !is_told {
            return;
        }
        let (socket, _) = self.client.stream.get_mut();
        let (begun, limit) = (Instant::now(), pause.saturating_mul(LINGER_PAUSES));
        while left > 0 && begun.elapsed() < limit {
            self.inbox.clear();
            let fill = self.inbox.fill_bulk(socket);
            match self.deadline.within(pause, fill).await {
                Ok(Ok(count)) if count > 0 => left = left.saturating_sub(count),
                _ => return,
            }
        }
    }
}

/// Whether nobody is left to write to.
fn is_reset(filled: &std::io::Result<usize>) -> bool {
    let kind = filled.as_ref().err().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::ConnectionReset)
}

/// How long a connection that a drain found without a request may take to send its first.
const FIRST_REQUEST: Duration = Duration::from_secs(2);
/// How long a connection is busy after a request.
const BUSY: Duration = Duration::from_millis(500);

/// How long a closed connection is read in all, counted in the pauses that `linger` allows between two
/// reads. nginx has 5 s and 30 s (`lingering_timeout`, `lingering_time`); a client that says nothing has
/// no answer to lose.
const LINGER_PAUSES: u32 = 30;
/// How much of what stands behind a head that is none: there is no body that could be on its way.
const AFTER_NO_HEAD: usize = 256 * 1024;
