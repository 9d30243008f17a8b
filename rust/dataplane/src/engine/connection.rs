//! One client connection: PROXY header, TLS, then what the configuration says is inside.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use cloister_transport::{Accepted, Detached, Stream};
use cloister_wire::config::Handling;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::counters::add;
use super::peer::Peer;
use super::proxy::Introduction;
use super::site::Site;
use super::tls::TlsConfigs;
use super::waiting::Place;
use super::{h1, h2, tcp};
use crate::certificate::Current;

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
        // On the heap: none pays for the room that another one needs.
        Ok(Ok(client)) if site.handling == Handling::Tcp => {
            Box::pin(tcp::serve(&site, client)).await;
        }
        Ok(Ok(client)) if client.stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            Box::pin(h2::serve(site, client)).await;
        }
        Ok(Ok(client)) => Box::pin(h1::serve(&site, client)).await,
        Ok(Err(error)) => {
            add(&site.counters.failed_handshakes, 1);
            tracing::debug!(%error, "a connection ended before its handshake did");
        }
        Err(_elapsed) => add(&site.counters.failed_handshakes, 1),
    }
}

async fn open(
    site: &Site,
    tls: &TlsConfigs,
    accepted: Accepted<Detached>,
    place: Place,
    handshakes: &Semaphore,
) -> io::Result<Client> {
    let mut opened = Opened::accepted(accepted.stream.attach()?);
    let peer = if site.proxy_protocol {
        let introduction = Introduction::read(&mut opened, &site.counters).await?;
        let peer = introduction.peer();
        opened.prefix = introduction.rest();
        peer
    } else {
        accepted.peer
    };
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), opened).await?;
    // The whole ClientHello is there: from here on a connection costs work, and has a slot.
    let away = place.leave();
    let slot = handshakes.acquire().await.map_err(io::Error::other)?;
    let config = tls.current()?;
    let mut handshake = pin!(hello.into_stream(std::sync::Arc::clone(&config.server)));
    let mut stream = match timeout(SLOT_TIME, &mut handshake).await {
        Ok(ended) => ended?,
        Err(_elapsed) => {
            // It waits for its client. Who comes next does not.
            drop(slot);
            let _place = away.back();
            handshake.await?
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
    stream: Stream,
}

impl Opened {
    pub(super) fn new(prefix: Vec<u8>, stream: Stream) -> Self {
        Self {
            prefix,
            used: 0,
            is_unread: false,
            is_unwritten: false,
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.is_unwritten)
            && let Some(written) = at_once(self.stream.write_at_once(slices))
        {
            return Poll::Ready(written);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
