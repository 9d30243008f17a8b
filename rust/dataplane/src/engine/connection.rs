//! One client connection: PROXY header, TLS, then what the configuration says is inside.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use cloister_transport::{Accepted, Detached, Stream};
use cloister_wire::config::Handling;
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::peer::Peer;
use super::proxy::Introduction;
use super::site::Site;
use super::tls::TlsConfigs;
use super::waiting::Place;
use super::{h1, h2, tcp};
use crate::certificate::Current;
use crate::server::traffic::{Handshake, HandshakeFailure};

/// A connection that speaks TLS.
pub(super) struct Client {
    pub(super) stream: TlsStream<Opened>,
    /// Who connected: the host's word.
    pub(super) peer: Option<Peer>,
    /// The certificate this connection was shown.
    pub(super) certificate: std::sync::Arc<Current>,
}

/// Serves a connection whose TLS ends here, to its end.
pub(super) async fn serve(
    site: Rc<Site>,
    accepted: Accepted<Detached>,
    place: Place,
    handshakes: Rc<Semaphore>,
) {
    let Some(tls) = &site.tls else {
        return;
    };
    let limit = site.settings.handshake_timeout;
    match timeout(limit, open(&site, tls, accepted, place, &handshakes)).await {
        Ok(Ok(client)) => {
            site.counters.handshake(kind(&client));
            // On the heap: none pays for the room that another one needs.
            if site.handling == Handling::Tcp {
                Box::pin(tcp::serve(&site, client)).await;
            } else if client.stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                Box::pin(h2::serve(site, client)).await;
            } else {
                Box::pin(h1::serve(&site, client)).await;
            }
        }
        Ok(Err((failure, error))) => {
            site.counters.handshake_failed(failure);
            tracing::debug!(%error, "a connection ended before its handshake did");
        }
        Err(_elapsed) => site.counters.handshake_failed(HandshakeFailure::Timeout),
    }
}

async fn open(
    site: &Site,
    tls: &TlsConfigs,
    accepted: Accepted<Detached>,
    place: Place,
    handshakes: &Semaphore,
) -> Result<Client, (HandshakeFailure, io::Error)> {
    let system = |error| (HandshakeFailure::Io, error);
    let mut opened = Opened::accepted(accepted.stream.attach().map_err(system)?);
    let peer = if site.proxy_protocol {
        let introduction = Introduction::read(&mut opened, &site.counters).await;
        let introduction =
            introduction.map_err(|error| (failure(&error, HandshakeFailure::Proxy), error))?;
        let peer = introduction.peer();
        opened.prefix = introduction.rest();
        peer
    } else {
        accepted.peer
    };
    let wrong = |error| (failure(&error, HandshakeFailure::Tls), error);
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), opened).await;
    let hello = hello.map_err(wrong)?;
    // The whole ClientHello is there: from here on a connection costs work, and has a slot.
    let away = place.leave();
    let slot = handshakes.acquire().await.map_err(io::Error::other);
    let slot = slot.map_err(system)?;
    let config = tls.current().map_err(system)?;
    let mut handshake = pin!(hello.into_stream(std::sync::Arc::clone(&config.server)));
    let mut stream = match timeout(SLOT_TIME, &mut handshake).await {
        Ok(ended) => ended.map_err(wrong)?,
        Err(_elapsed) => {
            // It waits for its client. Who comes next does not.
            drop(slot);
            let _place = away.back();
            handshake.await.map_err(wrong)?
        }
    };
    stream.get_mut().1.set_buffer_limit(Some(SEND_BYTES));
    Ok(Client {
        stream,
        peer: peer.map(Peer::new),
        certificate: std::sync::Arc::clone(&config.certificate),
    })
}

/// How long a handshake may keep its slot while its client has not answered. A client that is slower
/// goes on without one.
const SLOT_TIME: Duration = Duration::from_millis(50);
/// What an error of a handshake is counted as; `wrong` when the client sent something wrong.
fn failure(error: &io::Error, wrong: HandshakeFailure) -> HandshakeFailure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => HandshakeFailure::Closed,
        io::ErrorKind::InvalidData | io::ErrorKind::Other => wrong,
        _ => HandshakeFailure::Io,
    }
}

/// Which handshake it was.
fn kind(client: &Client) -> Handshake {
    let session = client.stream.get_ref().1;
    let is_v12 = session.protocol_version() == Some(ProtocolVersion::TLSv1_2);
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    match (is_resumed, is_v12) {
        (false, false) => Handshake::FullV13,
        (false, true) => Handshake::FullV12,
        (true, false) => Handshake::ResumedV13,
        (true, true) => Handshake::ResumedV12,
    }
}

/// Longest plaintext that is encrypted before it is written: a read of a body with its head goes out
/// in one system call.
const SEND_BYTES: usize = 128 * 1024;

/// A stream with the bytes of it that were read before.
#[derive(Debug)]
pub(super) struct Opened {
    prefix: Vec<u8>,
    used: usize,
    /// Whether nothing was read of it, so that its peer has probably spoken.
    is_unread: bool,
    /// Whether nothing was written to it, so that there is room.
    is_unwritten: bool,
    /// Bytes that were written to it; wraps around.
    sent: u64,
    stream: Stream,
}

impl Opened {
    pub(super) fn new(prefix: Vec<u8>, stream: Stream) -> Self {
        Self {
            prefix,
            used: 0,
            is_unread: false,
            is_unwritten: false,
            sent: 0,
            stream,
        }
    }

    /// A connection that was just accepted.
    fn accepted(stream: Stream) -> Self {
        Self {
            is_unread: true,
            is_unwritten: true,
            ..Self::new(Vec::new(), stream)
        }
    }

    /// How many bytes were written to it; wraps around.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    fn count(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            let count = u64::try_from(*count).unwrap_or(u64::MAX);
            self.sent = self.sent.wrapping_add(count);
        }
    }
}

/// What a call that does not wait came to; none when it has to be waited for.
fn at_once(done: io::Result<usize>) -> Option<io::Result<usize>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        other => Some(other),
    }
}

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = this.prefix.get(this.used..).unwrap_or_default();
        if rest.is_empty() {
            // Saves a turn of the reactor, which would find that it is readable.
            if std::mem::take(&mut this.is_unread)
                && let Some(read) = at_once(this.stream.read_at_once(buffer.initialize_unfilled()))
            {
                buffer.advance(read?);
                return Poll::Ready(Ok(()));
            }
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let part = rest
            .get(..buffer.remaining().min(rest.len()))
            .unwrap_or_default();
        buffer.put_slice(part);
        this.used = this.used.saturating_add(part.len());
        if this.used >= this.prefix.len() {
            this.prefix = Vec::new();
            this.used = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_unwritten = false;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let at_once = if std::mem::take(&mut self.is_unwritten) {
            at_once(self.stream.write_at_once(slices))
        } else {
            None
        };
        let written = match at_once {
            Some(written) => Poll::Ready(written),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        };
        self.count(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
