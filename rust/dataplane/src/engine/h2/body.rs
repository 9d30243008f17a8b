//! The body of a request.
//!
//! In HTTP/1 a message ends where its length says; in HTTP/2 it ends with a frame, and one that goes
//! on behind its length is malformed (RFC 9113 §8.1.1). So that no such request ever looks whole to
//! the user process, the last piece of a body with a length is kept until the end was seen.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cloister_http::RequestFraming;
use h2::RecvStream;

use super::{Link, length};
use crate::engine::bridge::RequestBody;
use crate::engine::deadline::Deadline;
use crate::engine::lines;
use crate::engine::outcome::Fault;
use crate::engine::refusal::Refusal;

/// A request body.
pub(super) struct Body<'s> {
    link: &'s Link,
    stream: RecvStream,
    /// Bytes that were given out and are in use yet.
    used: usize,
    /// What the length says is still to come.
    left: Option<u64>,
    /// The last piece of that.
    last: Option<Bytes>,
}

impl<'s> Body<'s> {
    pub(super) fn new(link: &'s Link, stream: RecvStream) -> Self {
        Self {
            link,
            stream,
            used: 0,
            left: None,
            last: None,
        }
    }

    /// Takes note of the length.
    pub(super) fn expect(&mut self, framing: RequestFraming) {
        self.left = match framing {
            RequestFraming::Length(length) => Some(length),
            RequestFraming::Chunked | RequestFraming::None => None,
        };
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(super) fn into_stream(self) -> RecvStream {
        self.stream
    }

    /// Waits for the end of a request that said that it has no body.
    pub(super) async fn end(&mut self) -> Result<(), Fault> {
        let idle = self.link.site.settings.body_idle;
        let mut body = &mut *self;
        let end = async {
            while poll_fn(|context| body.poll_data(context)).await?.is_some() {}
            Ok(())
        };
        let late = |_elapsed| Refusal::new(408, "the body took too long");
        Deadline::default().within(idle, end).await.map_err(late)?
    }

    fn give(&mut self, data: Bytes) -> Poll<Result<Option<Bytes>, Fault>> {
        self.used = data.len();
        Poll::Ready(Ok(Some(data)))
    }
}

impl RequestBody for &mut Body<'_> {
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        // Who asks for the next piece has done with the last one: the client may send as much again.
        if self.used > 0 {
            let used = std::mem::take(&mut self.used);
            let released = self.stream.flow_control().release_capacity(used);
            released.map_err(|_closed| Fault::Broken)?;
        }
        loop {
            let data = match ready!(self.stream.poll_data(context)) {
                None => {
                    return match self.last.take() {
                        Some(last) => self.give(last),
                        None => Poll::Ready(Ok(None)),
                    };
                }
                Some(Ok(data)) => data,
                Some(Err(_reset)) => return Poll::Ready(Err(Fault::Broken)),
            };
            let count = length(data.len());
            self.link.meter.payload(count);
            self.left = self.left.map(|left| left.saturating_sub(count));
            if self.left != Some(0) || self.stream.is_end_stream() {
                // An empty frame may be the end behind the last piece.
                let data = self.last.take().unwrap_or(data);
                return self.give(data);
            }
            if self.last.is_none() {
                self.last = Some(data);
            }
        }
    }

    fn poll_trailers(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<u8>, Fault>> {
        let trailers = ready!(self.stream.poll_trailers(context));
        let mut text = Vec::new();
        if let Some(trailers) = trailers.map_err(|_reset| Fault::Broken)? {
            lines::write_trailers(&trailers, &mut text);
        }
        Poll::Ready(Ok(text))
    }
}
