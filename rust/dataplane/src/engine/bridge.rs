//! Requests and responses that cross from one version of HTTP to another.
//!
//! What comes in is a head in the form of HTTP/1, whatever it was on the wire, so that one parser has
//! judged it, and a body; what goes out is the same. Between two connections of HTTP/1 nothing has to
//! be crossed: [`super::h1`] does that by itself, and faster.
//!
//! Both directions run at once, each with one piece of the body in hand, so that who sends faster
//! than the other side reads waits.

mod down;
mod scratch;
mod up;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use cloister_ciphertext::{OpenSession, Scanner};
use cloister_http::{RequestFraming, RequestHead, ResponseHead, websocket};
use cloister_wire::config::Protocol;

use super::deadline::Deadline;
use super::duplex::Duplex;
use super::handshake::Accept;
use super::judge;
use super::log::Entry;
use super::outcome::{Fault, Totals};
use super::outgoing::{Additions, OutgoingFraming, write_head};
use super::peer::Peer;
use super::process::{Call, Opening, http2_request};
use super::refusal::{Refusal, no_room};
use super::site::Site;
use crate::held::Held;
use crate::server::traffic::{UpstreamError, UpstreamUse};
use down::{Down, Returned};
pub(super) use down::{Opened, Piece, ResponseSource};
pub(super) use scratch::Bridges;
pub(super) use up::RequestSink;
use up::Up;

/// A request that was parsed.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'r> {
    pub(super) site: &'r Site,
    pub(super) head: &'r RequestHead,
    /// What `head` points into.
    pub(super) bytes: &'r [u8],
    pub(super) context: &'r [u8; 32],
    pub(super) peer: Option<&'r Peer>,
}

/// The body of a request, from the client.
pub(super) trait RequestBody {
    /// The next bytes; `None` at the end.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>>;

    /// Trailer lines that may be forwarded, once the body has ended.
    fn poll_trailers(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<u8>, Fault>>;
}

/// The response, to the client.
pub(super) trait ResponseSink {
    /// An interim response (1xx), which is left out where the client's protocol has none.
    async fn interim(&mut self, head: &ResponseHead, bytes: &Bytes) -> Result<(), Fault>;

    /// The final head. `is_whole`: no body and no trailers follow. `is_request_over`: the request was
    /// read to its end, so that the connection can go on.
    async fn begin(
        &mut self,
        head: &ResponseHead,
        bytes: &Bytes,
        is_whole: bool,
        is_request_over: bool,
    ) -> Result<(), Fault>;

    /// Bytes of the body. `is_last`: neither bytes nor trailers follow.
    async fn data(&mut self, data: Bytes, is_last: bool) -> Result<(), Fault>;

    /// Trailer lines, after which there is nothing.
    async fn trailers(&mut self, lines: &[u8]) -> Result<(), Fault>;

    /// Sends what was gathered.
    async fn flush(&mut self) -> Result<(), Fault>;

    /// Ready when the client takes the response no more.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// Whoever sent a request.
pub(super) trait Client {
    /// Its request body.
    type Body<'c>: RequestBody
    where
        Self: 'c;
    /// Its response.
    type Sink<'c>: ResponseSink
    where
        Self: 'c;

    /// Both, to be used at once.
    fn parts(&mut self) -> (Self::Body<'_>, Self::Sink<'_>);

    /// Answers `Expect: 100-continue`, once the request was let in.
    async fn go_ahead(&mut self) -> Result<(), Fault>;
}

/// How an exchange ended.
pub(super) enum Passed {
    /// With a tunnel to the user process.
    Switched(Box<dyn Duplex>),
    /// With a whole response. `is_request_over`: all of the request was read.
    Whole { is_request_over: bool },
}

/// How the body of a request is treated.
enum Plan {
    /// Opened whole before anything goes on.
    Held { bytes: Vec<u8>, _room: Held },
    /// There is none.
    None,
    /// Passed on as it arrives, through a scanner or not.
    Streamed(Option<Scanner>),
}

/// Judges and forwards a request.
pub(super) async fn exchange<C: Client>(
    request: Incoming<'_>,
    client: &mut C,
    totals: &mut Totals,
    mut entry: Option<&mut Entry>,
) -> Result<Passed, Fault> {
    let Incoming {
        site, head, bytes, ..
    } = request;
    let key = websocket::key(head, bytes).map_err(Refusal::from)?;
    let accept = key.map(Accept::of);
    let live = site.live();
    let id = judge::authenticate(site, &live, head, bytes)?;
    if let (Some(entry), Some(id)) = (entry.as_deref_mut(), id) {
        entry.authenticated(id);
    }
    let keys = site.keys(&live);
    let mut session = OpenSession::shared(&keys, site.open_policy());
    let planned = plan(request, client, &mut session, totals).await;
    totals.opening = session.counts();
    let plan = planned?;
    let framing = match (&plan, head.framing) {
        (Plan::None, _) => OutgoingFraming::None,
        (Plan::Held { bytes, .. }, _) => {
            OutgoingFraming::Length(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
        }
        (Plan::Streamed(None), RequestFraming::Length(length)) => OutgoingFraming::Length(length),
        (Plan::Streamed(_), _) => OutgoingFraming::Chunked,
    };
    let additions = Additions {
        context: request.context,
        peer: request.peer,
        framing,
        forward_api_key: site.config.forward_api_key,
        is_websocket: accept.is_some(),
        host: &site.host,
    };
    let mut scratch = site.bridges.scratch();
    let scratch = &mut *scratch;
    let written = judge::open_head(site, &mut session, |session| {
        scratch.out.clear();
        write_head(head, bytes, &additions, session, &mut scratch.out)
    });
    let written = written.await;
    totals.opening = session.counts();
    written?;
    let http2 = if site.config.service.protocol == Protocol::H2c {
        let takes_trailers = takes_trailers(head, bytes);
        let is_tunnel = accept.is_some();
        let request = http2_request(&scratch.out, is_tunnel, takes_trailers, &site.host)?;
        Some(Box::new(request))
    } else {
        None
    };
    let opening = Opening {
        site,
        http2,
        head: &scratch.out,
        accept: accept.as_ref(),
        is_head: head.method.of(bytes) == b"HEAD",
        framing,
    };
    let (has_begun, is_request_over) = (Cell::new(false), Cell::new(true));
    let mut down = Down {
        head: &mut scratch.head,
        deadline: &mut scratch.deadline,
        request,
        accept: accept.as_ref(),
        has_begun: &has_begun,
        is_request_over: &is_request_over,
    };
    let returned = match plan {
        Plan::Streamed(scanner) => {
            // On the heap: most requests have no room for it.
            Box::pin(stream(
                &opening,
                scanner,
                &mut session,
                &mut down,
                client,
                totals,
                entry,
            ))
            .await
        }
        Plan::Held { bytes, .. } => {
            whole(
                &opening,
                bytes.into(),
                false,
                &mut down,
                client,
                totals,
                entry,
            )
            .await
        }
        Plan::None => {
            let may_replay = judge::is_idempotent(head.method.of(bytes));
            whole(
                &opening,
                Bytes::new(),
                may_replay,
                &mut down,
                client,
                totals,
                entry,
            )
            .await
        }
    };
    totals.opening = session.counts();
    returned
}

/// Decides how the body is treated, and opens it when it is held whole.
async fn plan<C: Client>(
    request: Incoming<'_>,
    client: &mut C,
    session: &mut OpenSession<'_>,
    totals: &mut Totals,
) -> Result<Plan, Fault> {
    let settings = &request.site.settings;
    let length = match request.head.framing {
        RequestFraming::None => return Ok(Plan::None),
        RequestFraming::Chunked => None,
        RequestFraming::Length(length) => Some(length),
    };
    judge::length(settings, length)?;
    let Some(place) = judge::place(&request.head.fields, request.bytes) else {
        return Ok(Plan::Streamed(None));
    };
    let Some(length) = length.filter(|length| *length <= settings.decrypt_buffer) else {
        let scanner = Scanner::new(place, judge::scan_limits(settings));
        return Ok(Plan::Streamed(Some(scanner)));
    };
    let room = request.site.hold(length).ok_or_else(no_room)?;
    go_ahead(request, client).await?;
    let body = gather(request.site, length, client).await?;
    totals.bytes_in = length;
    let bytes = judge::open_whole(request.site, place, &body, session).await?;
    Ok(Plan::Held { bytes, _room: room })
}

/// Answers `Expect: 100-continue`; a client that does not read for too long is given up.
async fn go_ahead<C: Client>(request: Incoming<'_>, client: &mut C) -> Result<(), Fault> {
    if !request.head.expects_continue {
        return Ok(());
    }
    let limit = request.site.settings.body_idle;
    let written = Deadline::default().within(limit, client.go_ahead()).await;
    written.map_err(|_elapsed| Fault::Broken)?
}

/// Reads a body of known length.
async fn gather<C: Client>(site: &Site, length: u64, client: &mut C) -> Result<Vec<u8>, Fault> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut gathered = Vec::with_capacity(length);
    let mut deadline = Deadline::default();
    let (mut body, _) = client.parts();
    loop {
        let next = poll_fn(|context| body.poll_data(context));
        match deadline.within(site.settings.body_idle, next).await {
            Err(_elapsed) => return Err(Refusal::new(408, "the body took too long").into()),
            Ok(data) => match data? {
                Some(data) if gathered.len().saturating_add(data.len()) <= length => {
                    gathered.extend_from_slice(&data);
                }
                None if gathered.len() == length => return Ok(gathered),
                _ => return Err(Fault::Broken),
            },
        }
    }
}

/// Sends a request that is all here, and the response back.
async fn whole<C: Client>(
    opening: &Opening<'_>,
    body: Bytes,
    may_replay: bool,
    down: &mut Down<'_>,
    client: &mut C,
    totals: &mut Totals,
    mut entry: Option<&mut Entry>,
) -> Result<Passed, Fault> {
    let mut call = opening.pooled().await?;
    let returned = loop {
        let is_reused = call.is_reused();
        let (_, mut sink) = client.parts();
        let entry = entry.as_deref_mut();
        let returned = match &mut call {
            Call::Http1(call) => match call.send_whole(opening, &body).await {
                Ok(source) => down.run(source, &mut sink, totals, entry).await,
                Err(refusal) => Err(refusal.into()),
            },
            Call::Http2(call) => {
                if down.accept.is_some() {
                    call.allows_tunnels(opening.site).await?;
                }
                match call.send_whole(opening, body.clone()) {
                    Ok(source) => down.run(source, &mut sink, totals, entry).await,
                    Err(_closed) => Ok(Returned::Unprocessed),
                }
            }
        };
        drop(sink);
        let is_stale = match &returned {
            Ok(Returned::Stale) => may_replay,
            Ok(Returned::Unprocessed) => true,
            _ => false,
        };
        if !(is_stale && is_reused) {
            break returned;
        }
        opening.site.counters.upstream(UpstreamUse::Stale);
        call = opening.fresh().await?;
    };
    finish(opening.site, returned, call, true)
}

/// Sends a request whose body is still arriving, and the response back, both at once.
async fn stream<C: Client>(
    opening: &Opening<'_>,
    scanner: Option<Scanner>,
    session: &mut OpenSession<'_>,
    down: &mut Down<'_>,
    client: &mut C,
    totals: &mut Totals,
    entry: Option<&mut Entry>,
) -> Result<Passed, Fault> {
    let mut call = opening.pooled().await?;
    go_ahead(down.request, client).await?;
    down.is_request_over.set(false);
    let received = Cell::new(0);
    let outcome = {
        let (body, mut sink) = client.parts();
        let up = Up::new(opening.site, body, scanner, session, &received);
        match &mut call {
            Call::Http1(call) => {
                let (to, from) = call.both(opening);
                let is_over = down.is_request_over;
                let download = down.run(from, &mut sink, totals, entry);
                drive(up.run(to), download, is_over).await
            }
            Call::Http2(call) => match call.both(opening) {
                Ok((to, from)) => {
                    let is_over = down.is_request_over;
                    let download = down.run(from, &mut sink, totals, entry);
                    drive(up.run(to), download, is_over).await
                }
                Err(_closed) => Ok(Returned::Unprocessed),
            },
        }
    };
    totals.bytes_in = received.get();
    match outcome {
        // A response that has begun cannot become another one.
        Err(Fault::Refused(_)) if down.has_begun.get() => Err(Fault::Broken),
        outcome => finish(opening.site, outcome, call, down.is_request_over.get()),
    }
}

/// Runs both directions until the response is over.
async fn drive(
    upload: impl Future<Output = Result<bool, Fault>>,
    download: impl Future<Output = Result<Returned, Fault>>,
    is_request_over: &Cell<bool>,
) -> Result<Returned, Fault> {
    let (mut upload, mut download) = (pin!(upload), pin!(download));
    let mut is_uploading = true;
    poll_fn(|context| {
        if is_uploading && let Poll::Ready(ended) = upload.as_mut().poll(context) {
            is_uploading = false;
            match ended {
                Ok(is_whole) => is_request_over.set(is_whole),
                Err(fault) => return Poll::Ready(Err(fault)),
            }
        }
        download.as_mut().poll(context)
    })
    .await
}

/// Puts the connection to the user process back when it may be used again.
fn finish(
    site: &Site,
    returned: Result<Returned, Fault>,
    call: Call,
    is_request_over: bool,
) -> Result<Passed, Fault> {
    match returned? {
        Returned::Stale | Returned::Unprocessed => {
            let refusal = Refusal::new(502, "the user process closed the connection");
            Err(refusal.of_process(UpstreamError::Closed).into())
        }
        Returned::Switched => match call.into_tunnel() {
            Some(process) => Ok(Passed::Switched(process)),
            None => Err(Fault::Broken),
        },
        Returned::Whole { keeps_process } => {
            if keeps_process && is_request_over {
                call.keep(site);
            }
            Ok(Passed::Whole { is_request_over })
        }
    }
}

/// Whether the client said that it reads trailers: the one value of `TE` that goes on (RFC 9110
/// §10.1.4), because gRPC asks for it.
fn takes_trailers(head: &RequestHead, bytes: &[u8]) -> bool {
    head.fields.iter().any(|field| {
        field.name.of(bytes).eq_ignore_ascii_case(b"te")
            && field
                .value
                .of(bytes)
                .split(|byte| *byte == b',')
                .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}
