//! A request to the user process, in whichever HTTP it speaks.

mod http1;
mod http2;

use http::Request;

use super::duplex::Duplex;
use super::handshake::Accept;
use super::outgoing::OutgoingFraming;
use super::refusal::Refusal;
use super::site::Site;
pub(super) use http2::{Multiplexed, request as http2_request, room};

/// A request that is ready to be sent.
pub(super) struct Opening<'o> {
    pub(super) site: &'o Site,
    /// Its head, as [`super::outgoing`] writes it.
    pub(super) head: &'o [u8],
    /// What a handshake of WebSocket must be answered with; none when it is none.
    pub(super) accept: Option<&'o Accept>,
    /// Whether its method is HEAD: the response has no body.
    pub(super) is_head: bool,
    pub(super) framing: OutgoingFraming,
    /// The head again for a user process that speaks HTTP/2; none for one that does not.
    pub(super) http2: Option<Box<Request<()>>>,
}

/// A connection to the user process, or a place on one, for one request.
pub(super) enum Call {
    Http1(http1::Call),
    Http2(Box<http2::Call>),
}

impl Opening<'_> {
    /// On a connection that is there already, or else on a new one.
    pub(super) async fn pooled(&self) -> Result<Call, Refusal> {
        let opened = if let Some(request) = &self.http2 {
            let call = self.site.multiplexed.place(request).await;
            call.map(|call| Call::Http2(Box::new(call)))
        } else {
            let upstream = self.site.pool.take().await;
            upstream
                .map(|upstream| Call::Http1(http1::Call::new(upstream, self.site.bridges.buffer())))
        };
        opened.map_err(|error| Refusal::unreachable(&error))
    }

    /// On a new connection.
    pub(super) async fn fresh(&self) -> Result<Call, Refusal> {
        let opened = if let Some(request) = &self.http2 {
            let call = self.site.multiplexed.connect(request).await;
            call.map(|call| Call::Http2(Box::new(call)))
        } else {
            let upstream = self.site.pool.connect().await;
            upstream
                .map(|upstream| Call::Http1(http1::Call::new(upstream, self.site.bridges.buffer())))
        };
        opened.map_err(|error| Refusal::unreachable(&error))
    }
}

impl Call {
    /// Whether it was used before, so that the user process may have closed it meanwhile.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(call) => call.is_reused(),
            Self::Http2(call) => call.is_reused(),
        }
    }

    /// Lets the next request have it.
    pub(super) fn keep(self, site: &Site) {
        match self {
            Self::Http1(call) => call.keep(site),
            // Others are on it already.
            Self::Http2(_) => {}
        }
    }

    /// What a tunnel runs over, once the protocol was switched.
    pub(super) fn into_tunnel(self) -> Option<Box<dyn Duplex>> {
        match self {
            Self::Http1(call) => Some(Box::new(call.into_tunnel())),
            Self::Http2(call) => call.into_tunnel(),
        }
    }
}
