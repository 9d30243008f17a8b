//! HTTP/1 from the client, another version to the user process.

use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cloister_http::chunked::{write_chunk, write_end};
use cloister_http::forward::write_field;
use cloister_http::{ChunkEvent, HttpVersion, RequestFraming, ResponseHead};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio_rustls::server::TlsStream;

use super::Conversation;
use super::download::write_start;
use super::exchange::takes_chunks;
use super::inbox::Inbox;
use super::upload::Source;
use crate::engine::bridge::{Client, Incoming, Passed, RequestBody, ResponseSink, exchange};
use crate::engine::connection::Opened;
use crate::engine::log::Entry;
use crate::engine::outcome::{Fault, Totals};
use crate::engine::outgoing::UPGRADE;
use crate::engine::refusal::Refusal;

impl Conversation<'_> {
    /// Judges and forwards the request; says whether the connection can go on too.
    pub(super) async fn bridge(
        &mut self,
        context: &[u8; 32],
        totals: &mut Totals,
        entry: Option<&mut Entry>,
    ) -> Result<(Passed, bool), Fault> {
        let incoming = Incoming {
            site: self.site,
            head: &self.head,
            bytes: &self.head_bytes,
            context,
            peer: self.client.peer.as_ref(),
        };
        let (reader, writer) = split(&mut self.client.stream);
        let mut side = Side {
            body: Body {
                reader,
                inbox: &mut self.inbox,
                source: Source::new(self.head.framing, self.site.settings.chunks),
                is_over: self.head.framing == RequestFraming::None,
            },
            sink: Sink {
                writer,
                context,
                version: self.head.version,
                is_head: self.head.method.of(&self.head_bytes) == b"HEAD",
                is_kept: self.head.is_persistent && !self.site.is_draining(),
                is_chunked: false,
                out: std::mem::take(&mut self.out),
            },
        };
        let passed = exchange(incoming, &mut side, totals, entry).await;
        let Side { body, sink } = side;
        let (is_kept, is_over, out) = (sink.is_kept, body.is_over, sink.out);
        self.out = out;
        if is_over {
            // The body is behind us, so the connection can go on after a refusal.
            self.head.framing = RequestFraming::None;
        }
        passed.map(|passed| {
            let is_over = matches!(
                passed,
                Passed::Whole {
                    is_request_over: true
                }
            );
            (passed, is_kept && is_over)
        })
    }
}

/// The client of one request.
struct Side<'c> {
    body: Body<'c>,
    sink: Sink<'c>,
}

impl<'s> Client for Side<'s> {
    type Body<'c>
        = &'c mut Body<'s>
    where
        Self: 'c;
    type Sink<'c>
        = &'c mut Sink<'s>
    where
        Self: 'c;

    fn parts(&mut self) -> (Self::Body<'_>, Self::Sink<'_>) {
        (&mut self.body, &mut self.sink)
    }

    async fn go_ahead(&mut self) -> Result<(), Fault> {
        self.sink.out.clear();
        let go = b"HTTP/1.1 100 Continue\r\n\r\n";
        self.sink.out.extend_from_slice(go);
        self.sink.send().await
    }
}

/// The body of the request.
struct Body<'c> {
    reader: ReadHalf<&'c mut TlsStream<Opened>>,
    inbox: &'c mut Inbox,
    source: Source,
    is_over: bool,
}

impl RequestBody for &mut Body<'_> {
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        loop {
            let (consumed, data) = match &mut self.source {
                Source::Length(0) => {
                    self.is_over = true;
                    return Poll::Ready(Ok(None));
                }
                Source::Length(left) => {
                    let rest = self.inbox.rest();
                    let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
                    let data = rest.get(..wanted.min(rest.len())).unwrap_or_default();
                    *left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
                    (data.len(), data)
                }
                Source::Chunked(decoder) => match decoder.next(self.inbox.rest()) {
                    Err(error) => return Poll::Ready(Err(Refusal::from(error).into())),
                    Ok((consumed, ChunkEvent::Data(data))) => (consumed, data),
                    Ok((consumed, ChunkEvent::More)) => (consumed, &b""[..]),
                    Ok((consumed, ChunkEvent::End)) => {
                        self.inbox.consume(consumed);
                        self.is_over = true;
                        return Poll::Ready(Ok(None));
                    }
                },
            };
            let data = Bytes::copy_from_slice(data);
            self.inbox.consume(consumed);
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(data)));
            }
            // This future has no state, so a new one goes on where the last one waited.
            let Body { reader, inbox, .. } = &mut **self;
            match ready!(pin!(inbox.fill_bulk(reader)).poll(context)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(Err(Fault::Broken)),
            }
        }
    }

    fn poll_trailers(&mut self, _context: &mut Context<'_>) -> Poll<Result<Vec<u8>, Fault>> {
        Poll::Ready(Ok(match &self.source {
            Source::Chunked(decoder) => decoder.trailers(),
            Source::Length(_) => Vec::new(),
        }))
    }
}

/// The response.
struct Sink<'c> {
    writer: WriteHalf<&'c mut TlsStream<Opened>>,
    context: &'c [u8; 32],
    version: HttpVersion,
    is_head: bool,
    /// Whether the connection can go on behind the response.
    is_kept: bool,
    /// Whether the body is in chunks.
    is_chunked: bool,
    out: Vec<u8>,
}

impl Sink<'_> {
    /// Writes what was gathered.
    async fn send(&mut self) -> Result<(), Fault> {
        let write = async {
            self.writer.write_all(&self.out).await?;
            self.writer.flush().await
        };
        let written = write.await;
        self.out.clear();
        written.map_err(|_gone| Fault::Broken)
    }

    /// How the body ends: by its length, in chunks, or with the connection.
    fn write_framing(&mut self, head: &ResponseHead, is_whole: bool) {
        let length = match head.content_length {
            // HTTP/2 says by a flag that there is no body; here it needs a length.
            None if is_whole && !self.is_head && !matches!(head.status, 204 | 304) => Some(0),
            length => length,
        };
        if let Some(length) = length {
            let mut digits = itoa::Buffer::new();
            write_field(
                b"content-length",
                digits.format(length).as_bytes(),
                &mut self.out,
            );
        } else if !is_whole && takes_chunks(self.version) {
            self.is_chunked = true;
            self.out
                .extend_from_slice(b"transfer-encoding: chunked\r\n");
        } else if !is_whole {
            self.is_kept = false;
        }
    }
}

impl ResponseSink for &mut Sink<'_> {
    async fn interim(&mut self, head: &ResponseHead, bytes: &Bytes) -> Result<(), Fault> {
        if !takes_chunks(self.version) {
            return Ok(());
        }
        write_start(self.context, head, bytes, &mut self.out);
        self.out.extend_from_slice(b"\r\n");
        self.send().await
    }

    async fn begin(
        &mut self,
        head: &ResponseHead,
        bytes: &Bytes,
        is_whole: bool,
        is_request_over: bool,
    ) -> Result<(), Fault> {
        self.out.clear();
        write_start(self.context, head, bytes, &mut self.out);
        if head.status == 101 {
            self.out.extend_from_slice(UPGRADE);
            self.out.extend_from_slice(b"\r\n");
            return self.send().await;
        }
        self.write_framing(head, is_whole);
        self.is_kept &= is_request_over;
        if !self.is_kept {
            self.out.extend_from_slice(b"connection: close\r\n");
        } else if !takes_chunks(self.version) {
            self.out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    async fn data(&mut self, data: Bytes, is_last: bool) -> Result<(), Fault> {
        if self.is_chunked {
            write_chunk(&data, &mut self.out);
            if is_last {
                write_end(b"", &mut self.out);
            }
        } else {
            self.out.extend_from_slice(&data);
        }
        if is_last || self.out.len() >= FLUSH_BYTES {
            return self.send().await;
        }
        Ok(())
    }

    async fn trailers(&mut self, lines: &[u8]) -> Result<(), Fault> {
        // Without chunks there is no place for them (RFC 9110 §6.5.1 lets a recipient drop them).
        if self.is_chunked {
            write_end(lines, &mut self.out);
        }
        self.send().await
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.send().await
    }

    /// A client that ends its side may still read: it is not gone.
    fn poll_gone(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// Bytes of a response that are gathered before they are written.
const FLUSH_BYTES: usize = 32 * 1024;
