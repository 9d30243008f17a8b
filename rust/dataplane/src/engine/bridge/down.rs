//! A response on its way to the client.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use cloister_http::ResponseHead;
use cloister_http::websocket::check_switch;

use super::{Incoming, ResponseSink};
use crate::engine::deadline::{Deadline, Elapsed};
use crate::engine::handshake::Accept;
use crate::engine::log::Entry;
use crate::engine::outcome::{Fault, Totals};
use crate::engine::refusal::Refusal;
use crate::engine::site::Site;
use crate::server::traffic::UpstreamError;

/// A piece of a response's body.
#[derive(Debug)]
pub(in crate::engine) enum Piece {
    Data(Bytes),
    End,
}

/// What begins a response.
#[derive(Debug)]
pub(in crate::engine) enum Opened {
    /// Nothing: the connection was closed before a byte of it.
    Stale,
    /// Nothing, and the user process says that it did not begin with the request.
    Unprocessed,
    /// A head, and what it points into. `is_whole`: no body and no trailers follow.
    Head { bytes: Bytes, is_whole: bool },
}

/// A response, as it comes out of the user process.
pub(in crate::engine) trait ResponseSource {
    /// Reads the next head, interim ones too.
    fn poll_head(
        &mut self,
        head: &mut ResponseHead,
        context: &mut Context<'_>,
    ) -> Poll<Result<Opened, Fault>>;

    /// The next piece of the body behind the final head.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, Fault>>;

    /// Trailer lines that may be forwarded, once the body has ended.
    fn trailers(&mut self) -> Vec<u8>;

    /// Whether the connection is in order once the response has ended.
    fn is_reusable(&self) -> bool;
}

/// How a response ended.
#[derive(Debug)]
pub(super) enum Returned {
    /// The connection was closed before a byte of it.
    Stale,
    /// With a 101 that was asked for.
    Switched,
    /// The user process did not begin with the request.
    Unprocessed,
    /// Where its framing said.
    Whole { keeps_process: bool },
}

/// A response being passed on.
pub(super) struct Down<'d> {
    /// Memory for the head, and the timer.
    pub(super) head: &'d mut ResponseHead,
    pub(super) deadline: &'d mut Deadline,
    pub(super) request: Incoming<'d>,
    /// What a 101 must say; none when the request asked for none.
    pub(super) accept: Option<&'d Accept>,
    /// Set once a byte of a response may have reached the client.
    pub(super) has_begun: &'d Cell<bool>,
    /// Whether the whole request was sent.
    pub(super) is_request_over: &'d Cell<bool>,
}

impl Down<'_> {
    /// Reads the response and passes it on.
    pub(super) async fn run<S: ResponseSource, K: ResponseSink>(
        &mut self,
        mut from: S,
        to: &mut K,
        totals: &mut Totals,
        mut entry: Option<&mut Entry>,
    ) -> Result<Returned, Fault> {
        let site = self.request.site;
        let Self {
            head,
            deadline,
            request,
            accept,
            has_begun,
            is_request_over,
        } = self;
        let pass = Pass {
            site: request.site,
            is_request_over,
        };
        for left in (0..=site.settings.interim_responses).rev() {
            let opened = pass.head(head, &mut from, to, deadline).await?;
            let (bytes, is_whole) = match opened {
                Opened::Stale => return Ok(Returned::Stale),
                Opened::Unprocessed => return Ok(Returned::Unprocessed),
                Opened::Head { bytes, is_whole } => (bytes, is_whole),
            };
            if head.status == 101 {
                let accept = accept.ok_or_else(unasked)?;
                check_switch(head, &bytes, accept.as_bytes()).map_err(broken_handshake)?;
            } else if head.status < 200 {
                if left == 0 {
                    break;
                }
                // Our own 100 was sent already.
                if head.status != 100 {
                    has_begun.set(true);
                    pass.timely(deadline, to.interim(head, &bytes)).await?;
                }
                continue;
            }
            totals.status = head.status;
            if let Some(entry) = entry.as_deref_mut() {
                entry.answered(site, head, &bytes);
            }
            let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            totals.bytes_out = totals.bytes_out.saturating_add(count);
            has_begun.set(true);
            let is_over = is_request_over.get();
            let begin = to.begin(head, &bytes, is_whole, is_over);
            pass.timely(deadline, begin).await?;
            if head.status == 101 {
                return Ok(Returned::Switched);
            }
            if !is_whole {
                pass.body(&mut from, to, deadline, totals).await?;
            }
            pass.timely(deadline, to.flush()).await?;
            // A connection that was asked to become a tunnel is not used again, whatever was answered.
            let keeps_process = from.is_reusable() && accept.is_none();
            return Ok(Returned::Whole { keeps_process });
        }
        Err(Refusal::new(502, "the user process sent too many interim responses").into())
    }
}

/// What the waits of a response have in common.
struct Pass<'d> {
    site: &'d Site,
    is_request_over: &'d Cell<bool>,
}

impl Pass<'_> {
    /// Waits for a head.
    async fn head<S: ResponseSource, K: ResponseSink>(
        &self,
        head: &mut ResponseHead,
        from: &mut S,
        to: &mut K,
        deadline: &mut Deadline,
    ) -> Result<Opened, Fault> {
        let limit = self.site.settings.upstream_response;
        loop {
            let opened = poll_fn(|context| match from.poll_head(head, context) {
                Poll::Pending if to.poll_gone(context).is_ready() => {
                    Poll::Ready(Err(Fault::Broken))
                }
                polled => polled,
            });
            match deadline.within(limit, opened).await {
                Ok(opened) => return opened,
                // The clock of the response starts when the request is over.
                Err(Elapsed) if !self.is_request_over.get() => {}
                Err(Elapsed) => {
                    return Err(Refusal::new(504, "the user process did not answer in time").into());
                }
            }
        }
    }

    /// Passes the body on, one piece behind: the last one is known as such only when nothing follows.
    async fn body<S: ResponseSource, K: ResponseSink>(
        &self,
        from: &mut S,
        to: &mut K,
        deadline: &mut Deadline,
        totals: &mut Totals,
    ) -> Result<(), Fault> {
        let limit = self.site.settings.upstream_response;
        let mut last: Option<Bytes> = None;
        loop {
            let now = poll_fn(|context| {
                Poll::Ready(match from.poll_data(context) {
                    Poll::Ready(piece) => Some(piece),
                    Poll::Pending => None,
                })
            });
            let piece = if let Some(piece) = now.await {
                piece.map_err(|fault| self.broke_off(fault))?
            } else {
                if let Some(data) = last.take() {
                    self.timely(deadline, to.data(data, false)).await?;
                }
                self.timely(deadline, to.flush()).await?;
                let next = poll_fn(|context| match from.poll_data(context) {
                    Poll::Pending if to.poll_gone(context).is_ready() => {
                        Poll::Ready(Err(Fault::Broken))
                    }
                    polled => polled.map_err(|fault| self.broke_off(fault)),
                });
                let next = deadline.within(limit, next).await;
                next.map_err(|_elapsed| self.broke_off(Fault::Broken))??
            };
            match piece {
                Piece::Data(data) => {
                    let count = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    totals.bytes_out = totals.bytes_out.saturating_add(count);
                    if let Some(earlier) = last.replace(data) {
                        self.timely(deadline, to.data(earlier, false)).await?;
                    }
                }
                Piece::End => break,
            }
        }
        let trailers = from.trailers();
        if trailers.is_empty() {
            let end = to.data(last.unwrap_or_default(), true);
            return self.timely(deadline, end).await;
        }
        if let Some(data) = last {
            self.timely(deadline, to.data(data, false)).await?;
        }
        self.timely(deadline, to.trailers(&trailers)).await
    }

    /// A response that has begun has no other end.
    fn broke_off(&self, fault: Fault) -> Fault {
        let counters = &self.site.counters;
        counters.upstream_error(UpstreamError::Incomplete);
        tracing::debug!("the user process broke off its answer");
        fault
    }

    /// A client that does not read for too long is given up.
    async fn timely(
        &self,
        deadline: &mut Deadline,
        write: impl Future<Output = Result<(), Fault>>,
    ) -> Result<(), Fault> {
        let limit = self.site.settings.body_idle;
        let written = deadline.within(limit, write).await;
        written.map_err(|_elapsed| Fault::Broken)?
    }
}

fn unasked() -> Refusal {
    Refusal::new(502, "the user process switched protocols unasked")
}

fn broken_handshake(error: cloister_http::SwitchError) -> Refusal {
    let message = format!("the user process broke the handshake: {error}");
    Refusal::new(502, message)
}
