//! One connection of the relay.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use cloister_transport::{Accepted, End, Scratch, Stream, connect, join};
use cloister_wire::proxy_v2::{self, Header};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

use super::Job;

/// Connects, says who the client is when asked to, and moves bytes until both sides are done.
pub(super) async fn serve(job: Job, scratch: Scratch) {
    let Job { accepted, place } = job;
    let Some(counters) = place.counters() else {
        return;
    };
    let options = &place.shared.options;
    let Accepted {
        stream,
        peer,
        local,
    } = accepted;
    let Ok(mut client) = stream.attach() else {
        counters.failed.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let to = place.shared.target();
    let mut server = match connect(&to, options.connect_timeout).await {
        Ok(server) => server,
        Err(error) => {
            counters.connect_errors.fetch_add(1, Ordering::Relaxed);
            place.shared.note_connect_error(&to, &error);
            client.reset_on_close();
            return;
        }
    };
    let mut opening = Vec::new();
    if options.proxy_protocol {
        let header = match (peer, local) {
            (Some(source), Some(destination)) => Header::Tcp {
                source,
                destination,
            },
            _ => Header::Unspecified,
        };
        proxy_v2::encode(&header, &mut opening);
        let first = first_bytes(
            &mut client,
            &scratch,
            &mut opening,
            options.first_bytes_wait,
        );
        let Ok(count) = first.await else {
            counters.failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        counters.meter.forward.fetch_add(count, Ordering::Relaxed);
    }
    let copied = join(
        opening,
        &mut client,
        &mut server,
        options.limits,
        &scratch,
        &counters.meter,
    )
    .await;
    match copied.end {
        End::Closed => {}
        End::Failed(error) => {
            tracing::debug!(%error, "connection failed");
            counters.failed.fetch_add(1, Ordering::Relaxed);
            client.reset_on_close();
            server.reset_on_close();
        }
        End::Idle => {
            counters.idle_closed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Appends what the client has sent to `opening`: at once when it is there, else what comes within
/// `wait`. Returns how many bytes, 0 when there were none (the client may have ended, which the pump
/// finds again).
async fn first_bytes(
    client: &mut Stream,
    scratch: &Scratch,
    opening: &mut Vec<u8>,
    wait: Duration,
) -> io::Result<u64> {
    let reading = poll_fn(|context| {
        scratch.with(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            match Pin::new(&mut *client).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) => {
                    opening.extend_from_slice(buffer.filled());
                    Poll::Ready(Ok(u64::try_from(buffer.filled().len()).unwrap_or(u64::MAX)))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
    });
    // `timeout` polls what it waits for before it looks at the clock.
    timeout(wait, reading).await.unwrap_or(Ok(0))
}
