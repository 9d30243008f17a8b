//! `tls_termination = false`: what a client sends passes to the user process untouched.
//!
//! TLS is the user process's own matter, so there is no key, no log and no attestation here; the
//! configuration allows none of them. Both sides are streams of the kernel, and bulk does not pass
//! through this process. The PROXY header of the host ends here, or is replayed byte for byte, TLVs
//! included. Where an answer would be 503 or 502, the connection is reset.

use std::io;
use std::sync::atomic::Ordering;

use cloister_transport::{Accepted, Detached, End, Stream, join};
use cloister_wire::proxy_v2::{self, Header};
use tokio::time::timeout;

use super::counters::{Gauge, add};
use super::proxy::Introduction;
use super::site::Site;
use super::waiting::Place;
use crate::server::traffic::HandshakeFailure;

/// Serves a connection to its end.
pub(super) async fn serve(
    site: &Site,
    accepted: Accepted<Detached>,
    place: Place,
    replays_header: bool,
) {
    let introduced = introduce(site, accepted, replays_header);
    let introduced = timeout(site.settings.handshake_timeout, introduced).await;
    // From here on the user process is asked, and its own limits count.
    drop(place);
    let Ok(Ok((client, opening))) = introduced else {
        site.counters.handshake_failed(HandshakeFailure::Proxy);
        return;
    };
    add(&site.counters.sessions, 1);
    let _open = Gauge::enter(&site.counters.active_sessions);
    if let Err(error) = session(site, client, opening).await {
        add(&site.counters.refused, 1);
        tracing::debug!(%error, "a connection was not passed on");
    }
}

/// What the user process is sent first.
struct Opening {
    bytes: Vec<u8>,
    /// How many of them the client sent.
    of_client: usize,
}

async fn introduce(
    site: &Site,
    accepted: Accepted<Detached>,
    replays_header: bool,
) -> io::Result<(Stream, Opening)> {
    let mut client = accepted.stream.attach()?;
    let mut opening = Opening {
        bytes: Vec::new(),
        of_client: 0,
    };
    if site.proxy_protocol {
        let introduction = Introduction::read(&mut client, &site.counters).await?;
        if replays_header {
            (opening.bytes, opening.of_client) = introduction.whole();
        } else {
            opening.bytes = introduction.rest();
            opening.of_client = opening.bytes.len();
        }
    } else if replays_header {
        // There is no host in between: this is the one that accepted.
        let header = match (accepted.peer, accepted.local) {
            (Some(source), Some(destination)) => Header::Tcp {
                source,
                destination,
            },
            _ => Header::Unspecified,
        };
        proxy_v2::encode(&header, &mut opening.bytes);
    }
    Ok((client, opening))
}

/// # Errors
///
/// The session did not begin.
async fn session(site: &Site, mut client: Stream, opening: Opening) -> io::Result<()> {
    let mut process = match open(site).await {
        Ok(process) => process,
        Err(error) => {
            client.reset_on_close();
            return Err(error);
        }
    };
    let meter = &site.counters.passed;
    let of_client = u64::try_from(opening.of_client).unwrap_or(u64::MAX);
    meter.forward.fetch_add(of_client, Ordering::Relaxed);
    let copied = join(
        opening.bytes,
        &mut client,
        &mut process,
        site.settings.passing,
        &site.scratch,
        meter,
    )
    .await;
    if let End::Failed(error) = copied.end {
        tracing::debug!(%error, "a connection broke off");
        client.reset_on_close();
        process.reset_on_close();
    }
    Ok(())
}

async fn open(site: &Site) -> io::Result<Stream> {
    if !site.takes_sessions() {
        return Err(io::Error::other("no new connections are taken"));
    }
    Ok(site.pool.connect().await?.stream)
}
