//! A response of the user process over HTTP/2, in the form that every response is judged in.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use cloister_http::{HeadLimits, HeadSearch, ResponseHead};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Response, StatusCode};

use crate::engine::bridge::{Opened, Piece, ResponseSource};
use crate::engine::handshake::Accept;
use crate::engine::lines;
use crate::engine::outcome::Fault;
use crate::engine::process::Opening;
use crate::engine::refusal::Refusal;

/// A response on its way out.
pub(in crate::engine) struct Source<'c> {
    limits: HeadLimits,
    accept: Option<Accept>,
    /// Where the stream is put when it becomes a tunnel.
    receiving: &'c mut Option<RecvStream>,
    is_head: bool,
    state: Stage,
    trailers: Vec<u8>,
}

enum Stage {
    Head(ResponseFuture),
    /// A head that has no body behind it, and the end that may be a frame of its own.
    Empty(Box<http::response::Parts>, RecvStream),
    Body {
        stream: RecvStream,
        used: usize,
    },
    Trailers(RecvStream),
    Over,
}

impl<'c> Source<'c> {
    pub(super) fn new(
        opening: &Opening<'_>,
        response: ResponseFuture,
        receiving: &'c mut Option<RecvStream>,
    ) -> Self {
        Self {
            accept: opening.accept.copied(),
            receiving,
            limits: opening.site.settings.head,
            is_head: opening.is_head,
            state: Stage::Head(response),
            trailers: Vec::new(),
        }
    }

    /// Judges a head in the form of HTTP/1, as every other one is.
    fn judged(
        &self,
        response: &Response<()>,
        is_whole: bool,
        head: &mut ResponseHead,
    ) -> Result<Opened, Fault> {
        let mut text = Vec::with_capacity(256);
        lines::write_response(response, is_whole, &mut text);
        let search = &mut HeadSearch::default();
        match head.parse(&text, &self.limits, search, self.is_head) {
            Ok(true) => Ok(Opened::Head {
                bytes: text.into(),
                is_whole,
            }),
            Ok(false) => Err(Refusal::new(502, "the user process sent half a head").into()),
            Err(error) => {
                let message = format!("the user process broke the protocol: {error}");
                Err(Refusal::new(502, message).into())
            }
        }
    }
}

impl Source<'_> {
    /// Waits for the end of a response that has no body, and gives out its head.
    fn poll_empty(
        &mut self,
        head: &mut ResponseHead,
        context: &mut Context<'_>,
    ) -> Poll<Result<Opened, Fault>> {
        let Stage::Empty(_, stream) = &mut self.state else {
            return Poll::Ready(Err(Fault::Broken));
        };
        loop {
            match ready!(stream.poll_data(context)) {
                Some(Ok(data)) if data.is_empty() => {}
                None => break,
                Some(_) => {
                    let message = "the user process sent a body where there is none";
                    return Poll::Ready(Err(Refusal::new(502, message).into()));
                }
            }
        }
        let Stage::Empty(parts, _) = std::mem::replace(&mut self.state, Stage::Over) else {
            return Poll::Ready(Err(Fault::Broken));
        };
        Poll::Ready(self.judged(&Response::from_parts(*parts, ()), true, head))
    }
}

impl ResponseSource for Source<'_> {
    fn poll_head(
        &mut self,
        head: &mut ResponseHead,
        context: &mut Context<'_>,
    ) -> Poll<Result<Opened, Fault>> {
        let response = match &mut self.state {
            Stage::Head(response) => response,
            Stage::Empty(..) => return self.poll_empty(head, context),
            Stage::Body { .. } | Stage::Trailers(_) | Stage::Over => {
                return Poll::Ready(Err(Fault::Broken));
            }
        };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(context) {
            return Poll::Ready(self.judged(&interim, true, head));
        }
        let response = match ready!(Pin::new(response).poll(context)) {
            Ok(response) => response,
            Err(error) => return Poll::Ready(failed(&error)),
        };
        let (mut parts, stream) = response.into_parts();
        if let (Some(accept), StatusCode::OK) = (&self.accept, parts.status) {
            // RFC 8441 §5.1: a 200 is what HTTP/1 says with 101, and is written so.
            accept.switch(&mut parts);
            *self.receiving = Some(stream);
            self.state = Stage::Over;
            return Poll::Ready(self.judged(&Response::from_parts(parts, ()), true, head));
        }
        let is_whole = stream.is_end_stream();
        // RFC 9110 §6.4.1.
        let has_body = !self.is_head && !matches!(parts.status.as_u16(), 204 | 304);
        if !has_body && !is_whole {
            self.state = Stage::Empty(Box::new(parts), stream);
            return self.poll_empty(head, context);
        }
        let opened = self.judged(&Response::from_parts(parts, ()), is_whole, head);
        self.state = if is_whole {
            Stage::Over
        } else {
            Stage::Body { stream, used: 0 }
        };
        Poll::Ready(opened)
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        loop {
            match &mut self.state {
                Stage::Head(_) | Stage::Empty(..) => return Poll::Ready(Err(Fault::Broken)),
                Stage::Over => return Poll::Ready(Ok(Piece::End)),
                Stage::Body { stream, used } => {
                    // Only who took the last piece has room for another one.
                    let released = stream.flow_control().release_capacity(std::mem::take(used));
                    released.map_err(|_closed| Fault::Broken)?;
                    match ready!(stream.poll_data(context)) {
                        Some(Ok(data)) => {
                            *used = data.len();
                            return Poll::Ready(Ok(Piece::Data(data)));
                        }
                        Some(Err(_broken)) => return Poll::Ready(Err(Fault::Broken)),
                        None => {
                            let ended = std::mem::replace(&mut self.state, Stage::Over);
                            if let Stage::Body { stream, .. } = ended {
                                self.state = Stage::Trailers(stream);
                            }
                        }
                    }
                }
                Stage::Trailers(stream) => {
                    let trailers = ready!(stream.poll_trailers(context));
                    let trailers = trailers.map_err(|_broken| Fault::Broken)?;
                    self.trailers = trailers.as_ref().map(write_trailers).unwrap_or_default();
                    self.state = Stage::Over;
                }
            }
        }
    }

    fn trailers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.trailers)
    }

    fn is_reusable(&self) -> bool {
        true
    }
}

fn write_trailers(trailers: &HeaderMap) -> Vec<u8> {
    let mut text = Vec::new();
    lines::write_trailers(trailers, &mut text);
    text
}

/// What a request without a response came to.
fn failed(error: &h2::Error) -> Result<Opened, Fault> {
    // RFC 9113 §8.7: the request was not begun with, so it can be sent again.
    if error.reason() == Some(Reason::REFUSED_STREAM) || error.is_go_away() && error.is_remote() {
        return Ok(Opened::Unprocessed);
    }
    if error.is_io() {
        return Ok(Opened::Stale);
    }
    let message = format!("the user process ended the stream: {error}");
    Err(Refusal::new(502, message).into())
}
