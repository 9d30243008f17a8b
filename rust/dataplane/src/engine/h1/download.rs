//! A response on its way to the client.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};

use cloister_http::chunked::{write_chunk, write_end};
use cloister_http::forward::{connection_options, may_forward, write_field};
use cloister_http::websocket::check_switch;
use cloister_http::{
    ChunkDecoder, ChunkEvent, HeadSearch, HttpVersion, Known, ResponseFraming, ResponseHead,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::exchange::takes_chunks;
use super::inbox::{BULK_BYTES, Inbox};
use crate::engine::deadline::{Deadline, Elapsed};
use crate::engine::gather::{WORTH_BYTES, write_both};
use crate::engine::handshake::Accept;
use crate::engine::log::Entry;
use crate::engine::outcome::{Fault, Totals};
use crate::engine::outgoing::UPGRADE;
use crate::engine::refusal::Refusal;
use crate::engine::site::Site;
use crate::server::traffic::UpstreamError;

/// A response being passed on.
pub(super) struct Download<'d> {
    pub(super) site: &'d Site,
    pub(super) context: &'d [u8; 32],
    pub(super) method_is_head: bool,
    pub(super) client_version: HttpVersion,
    pub(super) is_persistent: bool,
    /// Set once a byte of a response may have reached the client.
    pub(super) has_begun: &'d Cell<bool>,
    /// Whether the whole request was sent.
    pub(super) is_request_over: &'d AtomicBool,
    /// What a 101 must say; none when the request asked for none.
    pub(super) accept: Option<&'d Accept>,
    pub(super) totals: &'d mut Totals,
    pub(super) entry: Option<&'d mut Entry>,
    /// Empty; the one of the scratch is used.
    pub(super) deadline: Deadline,
}

/// How a response ended.
pub(super) enum Returned {
    /// The connection was closed before a byte of it.
    Stale,
    /// With a 101 that was asked for: what follows is the tunnel.
    Switched,
    /// Where its framing said.
    Whole {
        keeps_client: bool,
        keeps_process: bool,
    },
}

impl Download<'_> {
    /// Reads the response and passes it on.
    pub(super) async fn run<R, W>(
        mut self,
        process: &mut R,
        client: &mut W,
    ) -> Result<Returned, Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut scratch = self.site.scratches.take();
        std::mem::swap(&mut self.deadline, &mut scratch.deadline);
        let returned = self.run_in(&mut scratch, process, client).await;
        std::mem::swap(&mut self.deadline, &mut scratch.deadline);
        self.site.scratches.put(scratch);
        returned
    }

    async fn run_in<R, W>(
        &mut self,
        scratch: &mut Scratch,
        process: &mut R,
        client: &mut W,
    ) -> Result<Returned, Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Scratch {
            inbox, head, out, ..
        } = scratch;
        for left in (0..=self.site.settings.interim_responses).rev() {
            if !self.head(head, inbox, process).await? {
                return Ok(Returned::Stale);
            }
            if head.status >= 200 {
                return self.pass(head, inbox, out, process, client).await;
            }
            if head.status == 101 {
                return self.switch(head, inbox, out, client).await;
            }
            if left == 0 {
                break;
            }
            // Our own 100 was sent already.
            if head.status != 100 && takes_chunks(self.client_version) {
                out.clear();
                write_start(self.context, head, inbox.rest(), out);
                out.extend_from_slice(b"\r\n");
                self.write(out, client).await?;
            }
            inbox.consume(head.length);
        }
        Err(Refusal::new(502, "the user process sent too many interim responses").into())
    }

    /// Reads a head; false when the stream ended before its first byte.
    async fn head<R: AsyncRead + Unpin>(
        &mut self,
        head: &mut ResponseHead,
        inbox: &mut Inbox,
        process: &mut R,
    ) -> Result<bool, Fault> {
        let limit = self.site.settings.upstream_response;
        self.deadline.forget();
        let mut search = HeadSearch::default();
        let broken = |message: String| Fault::from(Refusal::new(502, message));
        loop {
            let parsed = head.parse(
                inbox.rest(),
                &self.site.settings.head,
                &mut search,
                self.method_is_head,
            );
            match parsed {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => {
                    return Err(broken(format!(
                        "the user process broke the protocol: {error}"
                    )));
                }
            }
            match self.deadline.still_within(limit, inbox.fill(process)).await {
                // The clock of the response starts when the request is over.
                Err(Elapsed) if !self.is_request_over.load(Ordering::Relaxed) => {
                    self.deadline.forget();
                }
                Err(Elapsed) => {
                    return Err(Refusal::new(504, "the user process did not answer in time").into());
                }
                Ok(Ok(count)) if count > 0 => {}
                Ok(_) if inbox.is_empty() => return Ok(false),
                Ok(_) => return Err(broken("the user process broke off its answer".to_owned())),
            }
        }
    }

    /// Passes a 101 on, and what came behind it: that is the tunnel's already.
    async fn switch<W: AsyncWrite + Unpin>(
        &mut self,
        head: &ResponseHead,
        inbox: &mut Inbox,
        out: &mut Vec<u8>,
        client: &mut W,
    ) -> Result<Returned, Fault> {
        let Some(accept) = self.accept else {
            return Err(Refusal::new(502, "the user process switched protocols unasked").into());
        };
        check_switch(head, inbox.rest(), accept.as_bytes()).map_err(|error| {
            Refusal::new(
                502,
                format!("the user process broke the handshake: {error}"),
            )
        })?;
        self.totals.status = head.status;
        if let Some(entry) = self.entry.as_deref_mut() {
            entry.answered(self.site, head, inbox.rest());
        }
        out.clear();
        write_start(self.context, head, inbox.rest(), out);
        out.extend_from_slice(UPGRADE);
        out.extend_from_slice(b"\r\n");
        inbox.consume(head.length);
        out.extend_from_slice(inbox.rest());
        inbox.clear();
        self.write(out, client).await?;
        Ok(Returned::Switched)
    }

    /// Passes a final response on.
    async fn pass<R, W>(
        &mut self,
        head: &ResponseHead,
        inbox: &mut Inbox,
        out: &mut Vec<u8>,
        process: &mut R,
        client: &mut W,
    ) -> Result<Returned, Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let chunks = takes_chunks(self.client_version);
        let has_end = chunks
            || !matches!(
                head.framing,
                ResponseFraming::UntilClose | ResponseFraming::Chunked
            );
        let keeps_client = self.is_persistent
            && has_end
            && self.is_request_over.load(Ordering::Relaxed)
            && !self.site.is_draining();
        self.totals.status = head.status;
        if let Some(entry) = self.entry.as_deref_mut() {
            entry.answered(self.site, head, inbox.rest());
        }
        out.clear();
        write_start(self.context, head, inbox.rest(), out);
        match head.framing {
            ResponseFraming::Chunked | ResponseFraming::UntilClose if chunks => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            ResponseFraming::Chunked | ResponseFraming::UntilClose => {}
            ResponseFraming::Length(_) | ResponseFraming::None => {
                if let Some(length) = head.content_length {
                    let mut digits = itoa::Buffer::new();
                    write_field(b"content-length", digits.format(length).as_bytes(), out);
                }
            }
        }
        if !keeps_client {
            out.extend_from_slice(b"connection: close\r\n");
        } else if !chunks {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        inbox.consume(head.length);
        let body = BodyOut { out, chunks };
        match head.framing {
            ResponseFraming::None => self.write(body.out, client).await?,
            ResponseFraming::Length(length) => {
                self.by_length(length, body, inbox, process, client).await?;
            }
            ResponseFraming::Chunked => self.by_chunks(body, inbox, process, client).await?,
            ResponseFraming::UntilClose => {
                self.until_close(body, inbox, process, client).await?;
            }
        }
        // Bytes behind the response are nobody's: such a connection is not used again (T-02), nor is
        // one that was asked to become a tunnel, whatever was answered.
        let keeps_process = head.is_persistent && inbox.is_empty() && self.accept.is_none();
        Ok(Returned::Whole {
            keeps_client,
            keeps_process,
        })
    }

    async fn by_length<R, W>(
        &mut self,
        mut left: u64,
        body: BodyOut<'_>,
        inbox: &mut Inbox,
        process: &mut R,
        client: &mut W,
    ) -> Result<(), Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX);
            let data = inbox
                .rest()
                .get(..wanted.min(inbox.rest().len()))
                .unwrap_or_default();
            let count = data.len();
            left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
            if count < WORTH_BYTES {
                body.out.extend_from_slice(data);
                self.write(body.out, client).await?;
            } else {
                self.write_both(body.out, data, client).await?;
            }
            inbox.consume(count);
            body.out.clear();
            if left == 0 {
                return Ok(());
            }
            if self.fill(inbox, process).await? == 0 {
                return Err(self.broke_off());
            }
        }
    }

    async fn by_chunks<R, W>(
        &mut self,
        mut body: BodyOut<'_>,
        inbox: &mut Inbox,
        process: &mut R,
        client: &mut W,
    ) -> Result<(), Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut decoder = ChunkDecoder::new(self.site.settings.chunks);
        loop {
            // A chunk that is broken is a response that is broken off.
            let (consumed, event) = decoder
                .next(inbox.rest())
                .map_err(|_broken| self.broke_off())?;
            match event {
                ChunkEvent::Data(data) => {
                    body.push(data);
                    inbox.consume(consumed);
                }
                ChunkEvent::End => {
                    inbox.consume(consumed);
                    if body.chunks {
                        write_end(&decoder.trailers(), body.out);
                    }
                    return self.write(body.out, client).await;
                }
                ChunkEvent::More => {
                    inbox.consume(consumed);
                    self.write(body.out, client).await?;
                    body.out.clear();
                    if self.fill(inbox, process).await? == 0 {
                        return Err(self.broke_off());
                    }
                }
            }
        }
    }

    async fn until_close<R, W>(
        &mut self,
        mut body: BodyOut<'_>,
        inbox: &mut Inbox,
        process: &mut R,
        client: &mut W,
    ) -> Result<(), Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            body.push(inbox.rest());
            inbox.clear();
            self.write(body.out, client).await?;
            body.out.clear();
            if self.fill(inbox, process).await? == 0 {
                break;
            }
        }
        if body.chunks {
            write_end(b"", body.out);
        }
        self.write(body.out, client).await
    }

    async fn fill<R: AsyncRead + Unpin>(
        &mut self,
        inbox: &mut Inbox,
        process: &mut R,
    ) -> Result<usize, Fault> {
        let limit = self.site.settings.upstream_response;
        match self.deadline.within(limit, inbox.fill_bulk(process)).await {
            Ok(Ok(count)) => Ok(count),
            _ => Err(self.broke_off()),
        }
    }

    /// A response that has begun has no other end.
    fn broke_off(&self) -> Fault {
        let counters = &self.site.counters;
        counters.upstream_error(UpstreamError::Incomplete);
        tracing::debug!("the user process broke off its answer");
        Fault::Broken
    }

    async fn write<W: AsyncWrite + Unpin>(
        &mut self,
        bytes: &[u8],
        client: &mut W,
    ) -> Result<(), Fault> {
        self.write_both(bytes, b"", client).await
    }

    async fn write_both<W: AsyncWrite + Unpin>(
        &mut self,
        first: &[u8],
        second: &[u8],
        client: &mut W,
    ) -> Result<(), Fault> {
        let count = first.len().saturating_add(second.len());
        if count == 0 {
            return Ok(());
        }
        self.has_begun.set(true);
        let write = async {
            write_both(client, first, second).await?;
            client.flush().await
        };
        let limit = self.site.settings.body_idle;
        match self.deadline.within(limit, write).await {
            Ok(Ok(())) => {
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                self.totals.bytes_out = self.totals.bytes_out.saturating_add(count);
                Ok(())
            }
            _ => Err(Fault::Broken),
        }
    }
}

/// Appends status line and the headers that go on, without framing and without the empty line.
pub(super) fn write_start(
    context: &[u8; 32],
    head: &ResponseHead,
    bytes: &[u8],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason.of(bytes));
    out.extend_from_slice(b"\r\n");
    let options = connection_options(&head.fields, bytes);
    for field in head
        .fields
        .iter()
        .filter(|field| may_forward(field, bytes, &options))
    {
        if field.known != Known::Context {
            write_field(field.name.of(bytes), field.value.of(bytes), out);
        }
    }
    write_field(b"x-evervault-ctx", context, out);
}

/// Memory of one response, kept by the worker from one to the next.
#[derive(Debug, Default)]
pub(in crate::engine) struct Scratch {
    inbox: Inbox,
    head: ResponseHead,
    out: Vec<u8>,
    deadline: Deadline,
}

/// Scratches that nobody uses at the moment.
#[derive(Debug, Default)]
pub(in crate::engine) struct Scratches(RefCell<Vec<Scratch>>);

impl Scratches {
    fn take(&self) -> Scratch {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    fn put(&self, mut scratch: Scratch) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < MAX_SCRATCHES {
            scratch.inbox.clear();
            scratch.inbox.shrink_to(SCRATCH_BYTES);
            scratch.out.clear();
            scratch.out.shrink_to(SCRATCH_BYTES);
            kept.push(scratch);
        }
    }
}

/// Scratches kept by one worker, and the memory each keeps.
const MAX_SCRATCHES: usize = 64;
const SCRATCH_BYTES: usize = BULK_BYTES;

/// What is to be written, and whether in chunks.
struct BodyOut<'o> {
    out: &'o mut Vec<u8>,
    chunks: bool,
}

impl BodyOut<'_> {
    fn push(&mut self, data: &[u8]) {
        if self.chunks {
            write_chunk(data, self.out);
        } else {
            self.out.extend_from_slice(data);
        }
    }
}
