//! The user process over HTTP/2 in clear, with prior knowledge (RFC 9113 §3.3): gRPC servers.
//!
//! A worker has few connections and many requests on each. Another one is opened when the process
//! allows no more requests on those that there are.

mod source;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use cloister_http::HeadLimits;
use cloister_transport::Address;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, Request, Uri};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::Opening;
use crate::engine::bridge::RequestSink;
use crate::engine::duplex::{Duplex, Host, StreamDuplex};
use crate::engine::lines;
use crate::engine::refusal::Refusal;
use crate::engine::site::Site;
pub(in crate::engine) use source::Source;

/// Bytes of one response, and of all responses of a connection, that the process may be ahead.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one request that wait to be written.
const SEND_BUFFER: usize = 128 * 1024;
/// How long the settings of a new connection are waited for, and how often they are looked at: `h2`
/// tells nobody when they arrive.
const SETTINGS_WAIT: Duration = Duration::from_secs(1);
const SETTINGS_POLL: Duration = Duration::from_millis(5);

/// The connections of one worker.
#[derive(Debug)]
pub(in crate::engine) struct Multiplexed {
    address: Address,
    connect: Duration,
    header_list: u32,
    open: RefCell<Vec<Connection>>,
    /// Whoever opens a connection has it.
    turn: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Connection {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
}

#[derive(Debug, Default)]
struct State {
    is_closed: Cell<bool>,
    active: Cell<usize>,
}

impl Multiplexed {
    pub(in crate::engine) fn new(address: Address, connect: Duration, limits: &HeadLimits) -> Self {
        Self {
            address,
            connect,
            header_list: u32::try_from(limits.head).unwrap_or(u32::MAX),
            open: RefCell::default(),
            turn: Mutex::default(),
        }
    }

    /// A place on a connection that takes more requests, or on a new one.
    pub(super) async fn place(&self, request: &Request<()>) -> io::Result<Call> {
        if let Some(call) = self.free(request).await {
            return Ok(call);
        }
        // Requests that arrive together would each open a connection, and one is enough.
        let turn = timeout(self.connect, self.turn.lock()).await;
        let _turn = turn.map_err(|_elapsed| io::ErrorKind::TimedOut)?;
        match self.free(request).await {
            Some(call) => Ok(call),
            None => self.connect(request).await,
        }
    }

    /// A place on a connection that there is.
    async fn free(&self, request: &Request<()>) -> Option<Call> {
        let connection = {
            let mut open = self.open.borrow_mut();
            open.retain(|connection| !connection.state.is_closed.get());
            let mut open = open.iter();
            open.find(|connection| {
                connection.state.active.get() < connection.sender.current_max_send_streams()
            })
            .cloned()?
        };
        let place = Place::take(&connection.state);
        if let Ok(sender) = connection.sender.ready().await {
            return Some(Call::new(sender, place, true, request.clone()));
        }
        place.0.is_closed.set(true);
        None
    }

    /// A place on a new connection.
    pub(super) async fn connect(&self, request: &Request<()>) -> io::Result<Call> {
        let opened = async {
            let stream = cloister_transport::connect(&self.address, self.connect).await?;
            let handshake = h2::client::Builder::new()
                .enable_push(false)
                .initial_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(self.header_list)
                .max_send_buffer_size(SEND_BUFFER)
                .handshake::<_, Bytes>(stream);
            let (sender, driver) = handshake.await.map_err(io::Error::other)?;
            let state = Rc::<State>::default();
            let driven = Rc::clone(&state);
            tokio::task::spawn_local(async move {
                if let Err(error) = driver.await {
                    tracing::debug!(%error, "a connection to the user process ended");
                }
                driven.is_closed.set(true);
            });
            let place = Place::take(&state);
            let ready = sender.clone().ready().await.map_err(io::Error::other)?;
            let connection = Connection { sender, state };
            self.open.borrow_mut().push(connection);
            Ok(Call::new(ready, place, false, request.clone()))
        };
        match timeout(self.connect, opened).await {
            Ok(opened) => opened,
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// One of the requests that a connection has at a time.
#[derive(Debug)]
struct Place(Rc<State>);

impl Place {
    fn take(state: &Rc<State>) -> Self {
        state.active.set(state.active.get().saturating_add(1));
        Self(Rc::clone(state))
    }
}

impl Host for Place {
    /// The user process is not asked what a connection is worth.
    fn moved(&self, _bytes: usize) {}
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
    }
}

/// One request on a connection.
pub(in crate::engine) struct Call {
    sender: SendRequest<Bytes>,
    is_reused: bool,
    /// What is asked for.
    request: Request<()>,
    place: Place,
    /// Both ends of the stream when it may become a tunnel.
    sending: Option<SendStream<Bytes>>,
    receiving: Option<RecvStream>,
}

impl Call {
    fn new(
        sender: SendRequest<Bytes>,
        place: Place,
        is_reused: bool,
        request: Request<()>,
    ) -> Self {
        Self {
            sender,
            is_reused,
            request,
            place,
            sending: None,
            receiving: None,
        }
    }

    /// What a tunnel runs over, once the protocol was switched.
    pub(super) fn into_tunnel(self) -> Option<Box<dyn Duplex>> {
        let (sending, receiving) = (self.sending?, self.receiving?);
        Some(Box::new(StreamDuplex::new(receiving, sending, self.place)))
    }

    /// Waits until the user process has said that it takes `WebSockets` (RFC 8441 §3): on a new
    /// connection that may not have arrived yet.
    ///
    /// # Errors
    ///
    /// 502 when it does not say so.
    pub(in crate::engine) async fn allows_tunnels(&self, site: &Site) -> Result<(), Refusal> {
        let begun = Instant::now();
        while !self.sender.is_extended_connect_protocol_enabled() {
            if begun.elapsed() >= SETTINGS_WAIT.min(site.settings.upstream_connect) {
                let message = "the user process takes no websocket over HTTP/2";
                return Err(Refusal::new(502, message).kept());
            }
            sleep(SETTINGS_POLL).await;
        }
        Ok(())
    }

    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Sends a request that is all here.
    ///
    /// # Errors
    ///
    /// The connection takes no more requests.
    pub(in crate::engine) fn send_whole(
        &mut self,
        opening: &Opening<'_>,
        body: Bytes,
    ) -> Result<Source<'_>, h2::Error> {
        let is_tunnel = opening.accept.is_some();
        let (response, mut stream) = self.begin(body.is_empty() && !is_tunnel)?;
        if !body.is_empty() {
            // It is in memory already, so it may wait there.
            stream.send_data(body, true)?;
        }
        self.sending = is_tunnel.then_some(stream);
        Ok(Source::new(opening, response, &mut self.receiving))
    }

    /// Both directions, to be used at once.
    ///
    /// # Errors
    ///
    /// As [`Self::send_whole`].
    pub(in crate::engine) fn both(
        &mut self,
        opening: &Opening<'_>,
    ) -> Result<(Sink, Source<'_>), h2::Error> {
        let (response, stream) = self.begin(false)?;
        let source = Source::new(opening, response, &mut self.receiving);
        Ok((Sink { stream }, source))
    }

    fn begin(&mut self, is_whole: bool) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let request = std::mem::take(&mut self.request);
        self.sender.send_request(request, is_whole)
    }
}

/// The head, out of the form that it was written in.
///
/// # Errors
///
/// 400 for a target or a host that HTTP/1 lets pass and a URI cannot have, such as `/a<b`.
pub(in crate::engine) fn request(
    head: &[u8],
    is_tunnel: bool,
    takes_trailers: bool,
    own_host: &str,
) -> Result<Request<()>, Refusal> {
    let bad = |message| Refusal::new(400, message).kept();
    let (method, target, mut headers) = lines::request(head);
    let mut request = Request::new(());
    let method = Method::from_bytes(method);
    *request.method_mut() = method.map_err(|_error| bad("the method cannot go on over HTTP/2"))?;
    if is_tunnel {
        // RFC 8441 §5: what one connection was asked to become, a stream is asked to be.
        *request.method_mut() = Method::CONNECT;
        let protocol = Protocol::from_static("websocket");
        request.extensions_mut().insert(protocol);
        for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY] {
            headers.remove(name);
        }
    }
    let authority = headers.remove(HOST);
    let uri = Uri::builder().scheme("http").path_and_query(target);
    // An empty host names nobody (RFC 9112 §3.2), and a URI with a scheme names somebody.
    let uri = match &authority {
        Some(authority) if !authority.is_empty() => uri.authority(authority.as_bytes()),
        _ => uri.authority(own_host),
    };
    let uri = uri.build();
    *request.uri_mut() =
        uri.map_err(|_error| bad("the target or the host cannot go on over HTTP/2"))?;
    headers.remove(TRANSFER_ENCODING);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // No two requests have the same context id: never indexed (RFC 7541 §6.2.3), it leaves the tables
    // of both sides to what comes again.
    if let Some(context) = headers.get_mut(lines::CONTEXT) {
        context.set_sensitive(true);
    }
    *request.headers_mut() = headers;
    *request.version_mut() = http::Version::HTTP_2;
    Ok(request)
}

/// A request body on its way in.
pub(in crate::engine) struct Sink {
    stream: SendStream<Bytes>,
}

impl RequestSink for Sink {
    async fn data(&mut self, mut data: Bytes) -> bool {
        while !data.is_empty() {
            let Some(room) = room(&mut self.stream, data.len()).await else {
                return false;
            };
            let part = data.split_to(room.min(data.len()));
            if self.stream.send_data(part, false).is_err() {
                return false;
            }
        }
        true
    }

    async fn end(&mut self, trailers: &[u8]) -> bool {
        if trailers.is_empty() {
            return self.stream.send_data(Bytes::new(), true).is_ok();
        }
        self.stream.send_trailers(lines::fields(trailers)).is_ok()
    }

    async fn flush(&mut self) -> bool {
        true
    }
}

/// Room for at most `wanted` bytes on a stream; `None` when it takes no more.
pub(in crate::engine) async fn room(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
) -> Option<usize> {
    stream.reserve_capacity(wanted);
    loop {
        let room = stream.capacity();
        if room > 0 {
            return Some(room);
        }
        std::future::poll_fn(|context| stream.poll_capacity(context))
            .await?
            .ok()?;
    }
}
