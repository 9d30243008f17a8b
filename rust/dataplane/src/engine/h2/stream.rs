//! One request on an HTTP/2 connection, and its response.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use bytes::Bytes;
use cloister_http::forward::{connection_options, may_forward};
use cloister_http::{HeadSearch, Known, RequestFraming, RequestHead, ResponseHead};
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use super::body::Body;
use super::{Active, Link, head, length};
use crate::engine::attest;
use crate::engine::bridge::{Client, Incoming, Passed, RequestBody as _, ResponseSink, exchange};
use crate::engine::counters::{Gauge, add};
use crate::engine::duplex::StreamDuplex;
use crate::engine::inbox::Inbox;
use crate::engine::lines;
use crate::engine::log::Entry;
use crate::engine::outcome::{Fault, Totals};
use crate::engine::process::room;
use crate::engine::refusal::Refusal;
use crate::engine::session::Session;
use crate::engine::site;

/// Answers one request.
pub(super) async fn serve(
    active: Active,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let link = &*active.0;
    let site = &*link.site;
    add(&site.counters.requests, 1);
    let _gauge = Gauge::enter(&site.counters.active_requests);
    let context = site.context_id();
    let (parts, body) = request.into_parts();
    let mut stream = Stream {
        link,
        context: &context,
        body: Body::new(link, body),
        respond,
        sending: None,
    };
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    let is_whole = stream.body.is_end_stream();
    let is_websocket = parts.extensions.get::<Protocol>().is_some();
    let mut head = RequestHead::default();
    let parsed = head::write(&parts, is_whole, websocket_key, &mut bytes).and_then(|()| {
        let search = &mut HeadSearch::default();
        match head.parse(&bytes, &site.settings.head, search) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::new(400, "half a request head")),
            Err(error) => Err(Refusal::from(error)),
        }
    });
    drop(parts);
    link.meter.payload(length(bytes.len()));
    if let Err(refusal) = parsed {
        // There is nothing to say of it in a log.
        stream.refuse(&refusal);
        site.counters.answered(refusal.status, Duration::ZERO);
        return Box::pin(stream.linger(head.framing)).await;
    }
    if attest::is_for(&head, &bytes) {
        let begun = Instant::now();
        let status = Box::pin(stream.attest(&head, &bytes)).await;
        site.counters.answered(status, begun.elapsed());
        return Box::pin(stream.linger(head.framing)).await;
    }
    stream.body.expect(head.framing);
    let is_open = !is_whole && !is_websocket;
    stream.exchange(&head, &bytes, is_open).await;
}

/// Of how long a body the rest is still taken once the request was answered.
const LINGER_BYTES: u64 = 256 * 1024;
/// Bytes of a body in one frame: with the frame's own 9 (RFC 9113 §4.1) they fill one record of TLS
/// (2^14, RFC 8446 §5.1). The largest frame that every client takes would need a second record for its
/// end.
const FRAME_BYTES: usize = 16_384 - 9;
/// Room for an ordinary head, in bytes.
const HEAD_BYTES: usize = 512;

/// Random as RFC 6455 §4.1 wants it, so that the answer to it shows that the user process read it.
fn websocket_key() -> [u8; 16] {
    let mut key = [0; 16];
    // A key that is not random protects nothing less: both ends of it are here.
    let _unfilled = SystemRandom::new().fill(&mut key);
    key
}

/// A request and the way back.
struct Stream<'s> {
    link: &'s Link,
    context: &'s [u8; 32],
    body: Body<'s>,
    respond: SendResponse<Bytes>,
    /// The response, once it has begun.
    sending: Option<SendStream<Bytes>>,
}

impl Stream<'_> {
    /// Judges and forwards the request, and says in the log what it came to. `is_open`: its end is not
    /// there yet.
    async fn exchange(mut self, head: &RequestHead, bytes: &[u8], is_open: bool) {
        let site = &*self.link.site;
        let begun = Instant::now();
        let peer = self.link.peer.as_ref();
        let mut entry = site
            .sink
            .as_ref()
            .map(|_| Entry::begin(site, head, bytes, self.context, peer));
        let mut totals = Totals::default();
        let incoming = Incoming {
            site,
            head,
            bytes,
            context: self.context,
            peer,
        };
        let ended = if is_open && head.framing == RequestFraming::None {
            self.body.end().await
        } else {
            Ok(())
        };
        let outcome = match ended {
            Ok(()) => {
                let exchange = exchange(incoming, &mut self, &mut totals, entry.as_mut());
                exchange.instrument(site::span(incoming.context)).await
            }
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok(Passed::Whole { .. }) => {}
            Ok(Passed::Switched(mut process)) => {
                site.counters.answered(totals.status, begun.elapsed());
                let session = Session::new(site, entry, totals, begun);
                let Some(sending) = self.sending else { return };
                let mut client = StreamDuplex::new(
                    self.body.into_stream(),
                    sending,
                    Rc::clone(&self.link.meter),
                );
                // On the heap: a request that is no handshake has no room for it.
                Box::pin(session.run(Inbox::default(), &mut client, &mut process)).await;
                return;
            }
            Err(Fault::Refused(refusal)) => {
                if let Some(entry) = &mut entry {
                    entry.answered_here();
                }
                totals.status = refusal.status;
                self.refuse(&refusal);
            }
            Err(Fault::Broken) => self.break_off().await,
        }
        totals.count(&site.counters);
        let elapsed = begun.elapsed();
        site.counters.answered(totals.status, elapsed);
        if let (Some(sink), Some(entry)) = (&site.sink, entry) {
            entry.end(&totals, elapsed, sink);
        }
        self.linger(head.framing).await;
    }

    /// Answers the attestation endpoint, and says with which status.
    async fn attest(&mut self, head: &RequestHead, bytes: &[u8]) -> u16 {
        let site = &*self.link.site;
        let answered = attest::answer(site, &self.link.certificate, head, bytes).await;
        match answered {
            Ok(answer) => {
                let is_head = head.method.of(bytes) == b"HEAD";
                let body = answer.body.map(Bytes::from);
                self.answer(answer.status, &answer.lines, body, is_head);
                answer.status
            }
            Err(refusal) => {
                self.refuse(&refusal);
                refusal.status
            }
        }
    }

    /// Answers a request that is not forwarded.
    fn refuse(&mut self, refusal: &Refusal) {
        self.link.site.counters.refuse(refusal);
        site::span(self.context).in_scope(|| tracing::debug!(%refusal, "refused"));
        let (lines, body) = refusal.parts();
        self.answer(refusal.status, &lines, Some(body.into()), false);
    }

    /// Sends a whole response of our own. What is left of the request is not wanted: `h2` says so
    /// (RFC 9113 §8.1).
    fn answer(&mut self, status: u16, lines: &[u8], body: Option<Bytes>, is_head: bool) {
        let mut headers = lines::fields(lines);
        if let Some(body) = &body {
            headers.insert(http::header::CONTENT_LENGTH, body.len().into());
        }
        context(self.context, &mut headers);
        let body = body.filter(|body| !is_head && !body.is_empty());
        let response = head_of(status, headers);
        // A client that is gone is told nothing.
        if let Ok(mut sending) = self.respond.send_response(response, body.is_none())
            && let Some(body) = body
        {
            self.link.meter.payload(length(body.len()));
            let _gone = sending.send_data(body, true);
        }
    }

    /// Takes what is left of a short request once it was answered. RFC 9113 §8.1 has it reset at once;
    /// curl 7.88 loses the answer to a body that it is just sending then. A longer one is reset: while
    /// it is taken, that curl waits for ever.
    async fn linger(mut self, framing: RequestFraming) {
        let is_short = match framing {
            RequestFraming::Length(length) => length <= LINGER_BYTES,
            RequestFraming::Chunked | RequestFraming::None => true,
        };
        if !is_short || self.body.is_end_stream() {
            return;
        }
        let rest = async {
            let mut left = LINGER_BYTES;
            let mut body = &mut self.body;
            while let Ok(Some(data)) = poll_fn(|context| body.poll_data(context)).await {
                left = left.saturating_sub(length(data.len()));
                if left == 0 {
                    break;
                }
            }
        };
        let limit = self.link.site.settings.linger;
        // Whoever goes on sending is told to stop when the stream is dropped.
        let _ended = timeout(limit, rest).await;
    }

    /// Ends a response that cannot be finished, and counts one that the client does not want.
    async fn break_off(&mut self) {
        let is_gone = poll_fn(|context| Poll::Ready(self.parts().1.poll_gone(context).is_ready()));
        if is_gone.await {
            self.link.meter.reset();
            if self.link.meter.is_flood() {
                self.link.wake();
            }
            return;
        }
        match &mut self.sending {
            Some(sending) => sending.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

impl<'s> Client for Stream<'s> {
    type Body<'c>
        = &'c mut Body<'s>
    where
        Self: 'c;
    type Sink<'c>
        = Sink<'c>
    where
        Self: 'c;

    fn parts(&mut self) -> (Self::Body<'_>, Self::Sink<'_>) {
        let sink = Sink {
            link: self.link,
            context: self.context,
            respond: &mut self.respond,
            sending: &mut self.sending,
        };
        (&mut self.body, sink)
    }

    async fn go_ahead(&mut self) -> Result<(), Fault> {
        let interim = head_of(100, HeaderMap::new());
        let sent = self.respond.send_informational(interim);
        sent.map_err(|_gone| Fault::Broken)
    }
}

/// The response.
struct Sink<'c> {
    link: &'c Link,
    context: &'c [u8; 32],
    respond: &'c mut SendResponse<Bytes>,
    sending: &'c mut Option<SendStream<Bytes>>,
}

impl ResponseSink for Sink<'_> {
    async fn interim(&mut self, head: &ResponseHead, bytes: &Bytes) -> Result<(), Fault> {
        let interim = head_of(head.status, headers(head, bytes));
        let sent = self.respond.send_informational(interim);
        sent.map_err(|_gone| Fault::Broken)
    }

    async fn begin(
        &mut self,
        head: &ResponseHead,
        bytes: &Bytes,
        is_whole: bool,
        _is_request_over: bool,
    ) -> Result<(), Fault> {
        self.link.meter.payload(length(bytes.len()));
        let mut headers = headers(head, bytes);
        context(self.context, &mut headers);
        // RFC 8441 §5.1: what HTTP/1 answers with 101 is a 200 here, and the rest of the handshake is
        // not repeated.
        let status = if head.status == 101 {
            headers.remove(http::header::SEC_WEBSOCKET_ACCEPT);
            200
        } else {
            if let Some(length) = head.content_length {
                headers.insert(http::header::CONTENT_LENGTH, length.into());
            }
            head.status
        };
        let is_whole = is_whole && head.status != 101;
        let sent = self
            .respond
            .send_response(head_of(status, headers), is_whole);
        *self.sending = Some(sent.map_err(|_gone| Fault::Broken)?);
        Ok(())
    }

    async fn data(&mut self, mut data: Bytes, is_last: bool) -> Result<(), Fault> {
        let sending = self.sending.as_mut().ok_or(Fault::Broken)?;
        while !data.is_empty() {
            let wanted = data.len().min(FRAME_BYTES);
            let room = room(sending, wanted).await.ok_or(Fault::Broken)?;
            let part = data.split_to(room.min(wanted));
            self.link.meter.payload(length(part.len()));
            let is_end = is_last && data.is_empty();
            let sent = sending.send_data(part, is_end);
            sent.map_err(|_gone| Fault::Broken)?;
            if is_end {
                return Ok(());
            }
        }
        if is_last {
            let sent = sending.send_data(Bytes::new(), true);
            sent.map_err(|_gone| Fault::Broken)?;
        }
        Ok(())
    }

    async fn trailers(&mut self, lines: &[u8]) -> Result<(), Fault> {
        let sending = self.sending.as_mut().ok_or(Fault::Broken)?;
        let sent = sending.send_trailers(lines::fields(lines));
        sent.map_err(|_gone| Fault::Broken)
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.sending {
            Some(sending) => sending.poll_reset(context).map(drop),
            None => self.respond.poll_reset(context).map(drop),
        }
    }
}

/// A response head without its headers' being looked at again.
fn head_of(status: u16, headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = headers;
    response
}

/// Adds the context id.
fn context(context: &[u8; 32], headers: &mut HeaderMap) {
    if let Ok(mut value) = HeaderValue::from_bytes(context) {
        // No two responses have the same. A literal that is never indexed (RFC 7541 §6.2.3) leaves
        // both sides' tables to what comes again, and is not looked for among the earlier ones.
        value.set_sensitive(true);
        headers.insert(lines::CONTEXT, value);
    }
}

/// The headers of a response that go on. Their values stay where they are.
fn headers(head: &ResponseHead, bytes: &Bytes) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(head.fields.len().saturating_add(2));
    let options = connection_options(&head.fields, bytes);
    for field in head
        .fields
        .iter()
        .filter(|field| field.known != Known::Context && may_forward(field, bytes, &options))
    {
        let value = bytes.slice_ref(field.value.of(bytes));
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(field.name.of(bytes)),
            HeaderValue::from_maybe_shared(value),
        ) {
            map.append(name, value);
        }
    }
    map
}
