//! A body on its way to the user process.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use cloister_ciphertext::{OpenSession, Scanner};

use super::RequestBody;
use crate::engine::deadline::Deadline;
use crate::engine::judge;
use crate::engine::opening::Job;
use crate::engine::outcome::Fault;
use crate::engine::refusal::{Refusal, no_room};
use crate::engine::site::Site;
use crate::held::Held;

/// What a scanner may hold back without asking for room, and how much room it asks for at a time: an
/// encrypted file is held whole until its tag is checked.
const ROOM_BYTES: usize = 256 * 1024;
const ROOM_SIZE: u64 = 256 * 1024;

/// The request, on its way into the user process. Each method says false when the process takes no
/// more of it.
pub(in crate::engine) trait RequestSink {
    /// Bytes of the body.
    async fn data(&mut self, data: Bytes) -> bool;

    /// The end, with trailer lines.
    async fn end(&mut self, trailers: &[u8]) -> bool;

    /// Sends what was gathered.
    async fn flush(&mut self) -> bool;
}

/// A body being sent.
pub(super) struct Up<'u, 'k, B> {
    site: &'u Site,
    body: B,
    scanner: Option<Scanner>,
    session: &'u mut OpenSession<'k>,
    /// Bytes of the body so far.
    received: &'u Cell<u64>,
    /// Room for what the scanner holds back.
    room: Vec<Held>,
    /// What it opens.
    job: Job<'u>,
    deadline: Deadline,
}

impl<'u, 'k, B: RequestBody> Up<'u, 'k, B> {
    pub(super) fn new(
        site: &'u Site,
        body: B,
        scanner: Option<Scanner>,
        session: &'u mut OpenSession<'k>,
        received: &'u Cell<u64>,
    ) -> Self {
        Self {
            site,
            body,
            scanner,
            session,
            received,
            room: Vec::new(),
            job: site.opening.job(),
            deadline: Deadline::default(),
        }
    }

    /// Sends the body; true when all of it was sent, false when the user process stopped reading.
    pub(super) async fn run<K: RequestSink>(mut self, mut to: K) -> Result<bool, Fault> {
        let idle = self.site.settings.body_idle;
        let slow = |_elapsed| Refusal::new(504, "the user process does not read");
        let late = |_elapsed| Refusal::new(408, "the body took too long");
        loop {
            // What is here already is gathered; before a wait it is sent.
            let now = poll_fn(|context| {
                Poll::Ready(match self.body.poll_data(context) {
                    Poll::Ready(data) => Some(data),
                    Poll::Pending => None,
                })
            });
            let data = if let Some(data) = now.await {
                data?
            } else {
                self.job.rest();
                if !self.deadline.within(idle, to.flush()).await.map_err(slow)? {
                    return Ok(false);
                }
                let next = poll_fn(|context| self.body.poll_data(context));
                self.deadline.within(idle, next).await.map_err(late)??
            };
            let Some(data) = data else { break };
            let Some(data) = self.opened(data).await? else {
                continue;
            };
            self.job.rest();
            if !self
                .deadline
                .within(idle, to.data(data))
                .await
                .map_err(slow)?
            {
                return Ok(false);
            }
        }
        let rest = self.rest().await?;
        self.job.rest();
        if !rest.is_empty()
            && !self
                .deadline
                .within(idle, to.data(rest))
                .await
                .map_err(slow)?
        {
            return Ok(false);
        }
        let trailers = poll_fn(|context| self.body.poll_trailers(context));
        let trailers = self.deadline.within(idle, trailers).await.map_err(late)??;
        let end = to.end(&trailers);
        Ok(self.deadline.within(idle, end).await.map_err(slow)?)
    }

    /// Counts bytes and opens what is in them; `None` when they are held back.
    async fn opened(&mut self, data: Bytes) -> Result<Option<Bytes>, Fault> {
        let count = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let received = self.received.get().saturating_add(count);
        self.received.set(received);
        if let Some(limit) = self
            .site
            .settings
            .max_body
            .filter(|limit| received > *limit)
        {
            return Err(Refusal::new(413, format!("the body is longer than {limit} bytes")).into());
        }
        let Some(scanner) = &mut self.scanner else {
            return Ok((!data.is_empty()).then_some(data));
        };
        let mut opened = Vec::with_capacity(data.len());
        judge::scan(&mut self.job, scanner, &data, &mut opened, self.session).await?;
        let rooms = scanner.held() / ROOM_BYTES;
        while self.room.len() < rooms {
            let room = self.site.hold(ROOM_SIZE).ok_or_else(no_room)?;
            self.room.push(room);
        }
        Ok((!opened.is_empty()).then(|| opened.into()))
    }

    /// What the scanner held back. A body that failed has no end: the user process sees that it broke
    /// off.
    async fn rest(&mut self) -> Result<Bytes, Fault> {
        let mut opened = Vec::new();
        if let Some(scanner) = &mut self.scanner {
            judge::end_scan(&mut self.job, scanner, &mut opened, self.session).await?;
        }
        Ok(opened.into())
    }
}
