//! A body on its way to the user process: read, judged, opened, written again, in bounded memory.

use std::cell::Cell;

use cloister_ciphertext::{OpenSession, Scanner};
use cloister_http::chunked::{write_chunk, write_end};
use cloister_http::{ChunkDecoder, ChunkEvent, ChunkLimits, RequestFraming};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::inbox::Inbox;
use crate::engine::deadline::Deadline;
use crate::engine::judge;
use crate::engine::opening::Job;
use crate::engine::outcome::Fault;
use crate::engine::refusal::{Refusal, no_room};
use crate::engine::settings::Settings;
use crate::engine::site::Site;
use crate::held::Held;

/// Bytes that are gathered before they are written.
const FLUSH_BYTES: usize = 32 * 1024;

/// What a scanner may hold back without asking for room, and how much room it asks for at a time: an
/// encrypted file is held whole until its tag is checked.
const ROOM_BYTES: usize = 256 * 1024;
const ROOM_SIZE: u64 = 256 * 1024;

/// Where a body comes from.
#[derive(Debug)]
pub(super) enum Source {
    Chunked(ChunkDecoder),
    Length(u64),
}

impl Source {
    pub(super) fn new(framing: RequestFraming, limits: ChunkLimits) -> Self {
        match framing {
            RequestFraming::Chunked => Self::Chunked(ChunkDecoder::new(limits)),
            RequestFraming::Length(length) => Self::Length(length),
            RequestFraming::None => Self::Length(0),
        }
    }
}

/// A body being sent.
pub(super) struct Upload<'u, 'k> {
    pub(super) site: &'u Site,
    pub(super) settings: &'u Settings,
    pub(super) inbox: &'u mut Inbox,
    pub(super) source: Source,
    pub(super) scanner: Option<Scanner>,
    pub(super) session: &'u mut OpenSession<'k>,
    /// Bytes of the body so far.
    pub(super) received: &'u Cell<u64>,
    /// The head, not sent yet; then what is to be sent.
    pub(super) out: Vec<u8>,
    /// Room for what the scanner holds back.
    pub(super) room: Vec<Held>,
    /// What it opens.
    pub(super) job: Job<'u>,
    pub(super) deadline: Deadline,
}

enum Step {
    End,
    More,
    Some,
}

impl Upload<'_, '_> {
    /// Sends head and body; true when all of it was sent, false when the user process stopped
    /// reading.
    pub(super) async fn run<R, W>(mut self, client: &mut R, process: &mut W) -> Result<bool, Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let is_chunked = self.scanner.is_some() || matches!(self.source, Source::Chunked(_));
        let mut opened = Vec::new();
        loop {
            match self.step(is_chunked, &mut opened).await? {
                Step::End => break,
                Step::Some if self.out.len() < FLUSH_BYTES => {}
                Step::Some => {
                    if !self.flush(process).await? {
                        return Ok(false);
                    }
                }
                Step::More => {
                    if !self.flush(process).await? {
                        return Ok(false);
                    }
                    self.job.rest();
                    let fill = self.inbox.fill_bulk(client);
                    match self.deadline.within(self.settings.body_idle, fill).await {
                        Err(_elapsed) => {
                            return Err(Refusal::new(408, "the body took too long").into());
                        }
                        Ok(Ok(count)) if count > 0 => {}
                        Ok(_) => return Err(Fault::Broken),
                    }
                }
            }
        }
        self.end(is_chunked, &mut opened).await?;
        self.flush(process).await
    }

    /// Uses what is in the inbox.
    async fn step(&mut self, is_chunked: bool, opened: &mut Vec<u8>) -> Result<Step, Fault> {
        let (consumed, data) = match &mut self.source {
            Source::Length(0) => return Ok(Step::End),
            Source::Length(left) => {
                let rest = self.inbox.rest();
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
                let data = rest.get(..wanted.min(rest.len())).unwrap_or_default();
                *left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
                (data.len(), data)
            }
            Source::Chunked(decoder) => match decoder.next(self.inbox.rest()) {
                Err(error) => return Err(Refusal::from(error).into()),
                Ok((consumed, ChunkEvent::Data(data))) => (consumed, data),
                Ok((consumed, ChunkEvent::End)) => {
                    self.inbox.consume(consumed);
                    return Ok(Step::End);
                }
                Ok((consumed, ChunkEvent::More)) => {
                    self.inbox.consume(consumed);
                    return Ok(Step::More);
                }
            },
        };
        if data.is_empty() {
            return Ok(Step::More);
        }
        let received = self.received.get();
        let received = received.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        self.received.set(received);
        if let Some(limit) = self.settings.max_body.filter(|limit| received > *limit) {
            return Err(Refusal::new(413, format!("the body is longer than {limit} bytes")).into());
        }
        match &mut self.scanner {
            None if is_chunked => write_chunk(data, &mut self.out),
            None => self.out.extend_from_slice(data),
            Some(scanner) => {
                opened.clear();
                judge::scan(&mut self.job, scanner, data, opened, self.session).await?;
                let rooms = scanner.held() / ROOM_BYTES;
                while self.room.len() < rooms {
                    let room = self.site.hold(ROOM_SIZE).ok_or_else(no_room)?;
                    self.room.push(room);
                }
                write_chunk(opened, &mut self.out);
            }
        }
        self.inbox.consume(consumed);
        Ok(Step::Some)
    }

    /// What the scanner held back, and the last chunk. A body that failed has none: the user
    /// process sees that it broke off.
    async fn end(&mut self, is_chunked: bool, opened: &mut Vec<u8>) -> Result<(), Fault> {
        if let Some(scanner) = &mut self.scanner {
            opened.clear();
            judge::end_scan(&mut self.job, scanner, opened, self.session).await?;
            write_chunk(opened, &mut self.out);
        }
        if is_chunked {
            let trailers = match &self.source {
                Source::Chunked(decoder) => decoder.trailers(),
                Source::Length(_) => Vec::new(),
            };
            write_end(&trailers, &mut self.out);
        }
        Ok(())
    }

    /// Writes what was gathered; false when the user process does not take it any more. What it
    /// answered is then for the download to say.
    async fn flush<W: AsyncWrite + Unpin>(&mut self, process: &mut W) -> Result<bool, Fault> {
        if self.out.is_empty() {
            return Ok(true);
        }
        self.job.rest();
        let write = process.write_all(&self.out);
        let written = self.deadline.within(self.settings.body_idle, write).await;
        self.out.clear();
        match written {
            Ok(Ok(())) => Ok(true),
            Ok(Err(_closed)) => Ok(false),
            Err(_elapsed) => Err(Refusal::new(504, "the user process does not read").into()),
        }
    }
}
