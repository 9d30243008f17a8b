//! The user process over HTTP/1.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use cloister_http::chunked::{write_chunk, write_end};
use cloister_http::{
    ChunkDecoder, ChunkEvent, ChunkLimits, HeadLimits, HeadSearch, ResponseFraming, ResponseHead,
};
use cloister_transport::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};

use super::Opening;
use crate::engine::bridge::{Opened as Begun, Piece, RequestSink, ResponseSource};
use crate::engine::connection::Opened;
use crate::engine::deadline::Deadline;
use crate::engine::outcome::Fault;
use crate::engine::outgoing::OutgoingFraming;
use crate::engine::pool::Upstream;
use crate::engine::refusal::Refusal;
use crate::engine::site::Site;

/// Room made for a read of a head, and of a body.
const HEAD_BYTES: usize = 8 * 1024;
const BULK_BYTES: usize = 64 * 1024;
/// A shorter piece of a body is copied out, so that the buffer can be read into again.
const COPIED_BYTES: usize = 4 * 1024;
/// Bytes of a request that are gathered before they are written.
const FLUSH_BYTES: usize = 32 * 1024;

/// One request on a connection.
pub(in crate::engine) struct Call {
    upstream: Upstream,
    /// What was read and not used yet.
    buffer: BytesMut,
}

impl Call {
    pub(super) fn new(upstream: Upstream, buffer: BytesMut) -> Self {
        Self { upstream, buffer }
    }

    pub(super) fn is_reused(&self) -> bool {
        self.upstream.is_reused
    }

    /// Lets the next request have the connection, and the buffer.
    pub(super) fn keep(self, site: &Site) {
        site.pool.put(self.upstream.stream);
        site.bridges.put(self.buffer);
    }

    /// The connection once its protocol was switched. What came behind the head is its beginning.
    pub(super) fn into_tunnel(self) -> Opened {
        Opened::new(self.buffer.into(), self.upstream.stream)
    }

    /// Sends a request that is all here.
    ///
    /// # Errors
    ///
    /// 504 when the process does not read. One that is gone says so when it is read from: what it
    /// answered before is heard all the same.
    pub(in crate::engine) async fn send_whole(
        &mut self,
        opening: &Opening<'_>,
        body: &Bytes,
    ) -> Result<Source<'_, &mut Stream>, Refusal> {
        let stream = &mut self.upstream.stream;
        let write = async {
            if body.is_empty() {
                return stream.write_all(opening.head).await;
            }
            let whole = [opening.head, &body[..]].concat();
            stream.write_all(&whole).await
        };
        let limit = opening.site.settings.body_idle;
        let sent = Deadline::default().within(limit, write).await;
        sent.map_err(|_elapsed| Refusal::new(504, "the user process does not read"))
            .map(drop)?;
        Ok(Source::new(
            opening,
            &mut self.upstream.stream,
            &mut self.buffer,
        ))
    }

    /// Both directions, to be used at once.
    pub(in crate::engine) fn both(
        &mut self,
        opening: &Opening<'_>,
    ) -> (Sink<'_>, Source<'_, ReadHalf<&mut Stream>>) {
        let (reader, writer) = split(&mut self.upstream.stream);
        let sink = Sink {
            writer,
            out: opening.head.to_vec(),
            is_chunked: opening.framing == OutgoingFraming::Chunked,
        };
        (sink, Source::new(opening, reader, &mut self.buffer))
    }
}

/// A request body on its way in.
pub(in crate::engine) struct Sink<'c> {
    writer: WriteHalf<&'c mut Stream>,
    /// The head, not sent yet; then what is to be sent.
    out: Vec<u8>,
    is_chunked: bool,
}

impl RequestSink for Sink<'_> {
    async fn data(&mut self, data: Bytes) -> bool {
        if self.is_chunked {
            write_chunk(&data, &mut self.out);
        } else {
            self.out.extend_from_slice(&data);
        }
        self.out.len() < FLUSH_BYTES || self.flush().await
    }

    async fn end(&mut self, trailers: &[u8]) -> bool {
        if self.is_chunked {
            write_end(trailers, &mut self.out);
        }
        self.flush().await
    }

    async fn flush(&mut self) -> bool {
        if self.out.is_empty() {
            return true;
        }
        let written = self.writer.write_all(&self.out).await;
        self.out.clear();
        written.is_ok()
    }
}

/// How a body goes on.
enum Rest {
    Chunks(Box<ChunkDecoder>),
    Length(u64),
    UntilClose,
}

/// A response on its way out.
pub(in crate::engine) struct Source<'c, R> {
    reader: R,
    buffer: &'c mut BytesMut,
    limits: HeadLimits,
    chunks: ChunkLimits,
    search: HeadSearch,
    is_head: bool,
    is_persistent: bool,
    rest: Rest,
}

impl<'c, R: AsyncRead + Unpin> Source<'c, R> {
    fn new(opening: &Opening<'_>, reader: R, buffer: &'c mut BytesMut) -> Self {
        Self {
            reader,
            buffer,
            limits: opening.site.settings.head,
            chunks: opening.site.settings.chunks,
            search: HeadSearch::default(),
            is_head: opening.is_head,
            is_persistent: false,
            rest: Rest::Length(0),
        }
    }

    /// Reads once; 0 at the end of the stream.
    fn poll_fill(&mut self, room: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(room);
        // This future has no state, so a new one goes on where the last one waited.
        pin!(self.reader.read_buf(self.buffer)).poll(context)
    }

    /// Takes bytes out of the buffer.
    fn take(&mut self, count: usize) -> Bytes {
        if count <= COPIED_BYTES {
            let copied = Bytes::copy_from_slice(self.buffer.get(..count).unwrap_or_default());
            self.buffer.advance(count.min(self.buffer.len()));
            return copied;
        }
        self.buffer.split_to(count.min(self.buffer.len())).freeze()
    }

    /// What the buffer holds of the body; `None` when more must be read.
    fn piece(&mut self) -> Result<Option<Piece>, Fault> {
        match &mut self.rest {
            Rest::Length(0) => Ok(Some(Piece::End)),
            Rest::Length(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
                let count = wanted.min(self.buffer.len());
                *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
                Ok((count > 0).then(|| Piece::Data(self.take(count))))
            }
            Rest::UntilClose => {
                let count = self.buffer.len();
                Ok((count > 0).then(|| Piece::Data(self.take(count))))
            }
            Rest::Chunks(decoder) => {
                // A chunk that is broken is a response that is broken off.
                let (consumed, event) =
                    decoder.next(self.buffer).map_err(|_broken| Fault::Broken)?;
                let (length, is_over) = match event {
                    ChunkEvent::Data(data) => (data.len(), false),
                    ChunkEvent::End => (0, true),
                    ChunkEvent::More => (0, false),
                };
                // The data lies at the end of what was consumed.
                self.buffer.advance(consumed.saturating_sub(length));
                Ok(match (length, is_over) {
                    (0, true) => Some(Piece::End),
                    (0, false) => None,
                    _ => Some(Piece::Data(self.take(length))),
                })
            }
        }
    }
}

impl<R: AsyncRead + Unpin> ResponseSource for Source<'_, R> {
    fn poll_head(
        &mut self,
        head: &mut ResponseHead,
        context: &mut Context<'_>,
    ) -> Poll<Result<Begun, Fault>> {
        let broken = |message: String| Fault::from(Refusal::new(502, message));
        loop {
            match head.parse(self.buffer, &self.limits, &mut self.search, self.is_head) {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    let message = format!("the user process broke the protocol: {error}");
                    return Poll::Ready(Err(broken(message)));
                }
            }
            match ready!(self.poll_fill(HEAD_BYTES, context)) {
                Ok(count) if count > 0 => {}
                _ if self.buffer.is_empty() => return Poll::Ready(Ok(Begun::Stale)),
                _ => {
                    let message = "the user process broke off its answer".to_owned();
                    return Poll::Ready(Err(broken(message)));
                }
            }
        }
        self.search = HeadSearch::default();
        self.is_persistent = head.is_persistent;
        self.rest = match head.framing {
            ResponseFraming::Chunked => Rest::Chunks(Box::new(ChunkDecoder::new(self.chunks))),
            ResponseFraming::Length(length) => Rest::Length(length),
            ResponseFraming::None => Rest::Length(0),
            ResponseFraming::UntilClose => Rest::UntilClose,
        };
        let bytes = self.take(head.length);
        let is_whole = matches!(self.rest, Rest::Length(0));
        Poll::Ready(Ok(Begun::Head { bytes, is_whole }))
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        loop {
            if let Some(piece) = self.piece()? {
                return Poll::Ready(Ok(piece));
            }
            match ready!(self.poll_fill(BULK_BYTES, context)) {
                Ok(count) if count > 0 => {}
                Ok(_) if matches!(self.rest, Rest::UntilClose) => {
                    return Poll::Ready(Ok(Piece::End));
                }
                _ => return Poll::Ready(Err(Fault::Broken)),
            }
        }
    }

    fn trailers(&mut self) -> Vec<u8> {
        match &self.rest {
            Rest::Chunks(decoder) => decoder.trailers(),
            Rest::Length(_) | Rest::UntilClose => Vec::new(),
        }
    }

    /// Bytes behind the response are nobody's: such a connection is not used again (T-02).
    fn is_reusable(&self) -> bool {
        self.is_persistent && self.buffer.is_empty()
    }
}
