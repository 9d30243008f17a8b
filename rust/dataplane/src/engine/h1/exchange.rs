//! One request and its response: who may, what is opened, where it goes, what comes back.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;

use cloister_ciphertext::{OpenSession, Scanner, may_need_scan};
use cloister_http::{HttpVersion, RequestFraming, websocket};
use tokio::io::AsyncWriteExt as _;

use super::Conversation;
use super::download::{Download, Returned};
use super::inbox::KEPT_BYTES;
use super::upload::{Source, Upload};
use crate::engine::deadline::Deadline;
use crate::engine::duplex::Duplex;
use crate::engine::gather::{WORTH_BYTES, write_both};
use crate::engine::handshake::Accept;
use crate::engine::judge;
use crate::engine::log::Entry;
use crate::engine::outcome::{Fault, Totals};
use crate::engine::outgoing::{Additions, OutgoingFraming, write_head};
use crate::engine::pool::Upstream;
use crate::engine::refusal::{Refusal, no_room};
use crate::held::Held;
use crate::server::traffic::{UpstreamError, UpstreamUse};

/// What an exchange leaves behind.
pub(super) enum Exchanged {
    /// A connection, which can go on or not.
    Answered { is_kept: bool },
    /// A tunnel to the user process.
    Switched(Box<dyn Duplex>),
}

/// How the body of a request is treated.
enum Body {
    /// Whole in the inbox, with nothing in it to open.
    Here { length: usize, _room: Held },
    /// Opened whole before anything goes on.
    Held { bytes: Vec<u8>, _room: Held },
    /// There is none.
    None,
    /// Passed on as it arrives, through a scanner or not.
    Streamed(Option<Scanner>),
}

impl Conversation<'_> {
    /// Judges and forwards the request.
    pub(super) async fn exchange(
        &mut self,
        context: &[u8; 32],
        totals: &mut Totals,
        mut entry: Option<&mut Entry>,
    ) -> Result<Exchanged, Fault> {
        let site = self.site;
        let key = websocket::key(&self.head, &self.head_bytes).map_err(Refusal::from)?;
        let accept = key.map(Accept::of);
        let live = site.live();
        let id = judge::authenticate(site, &live, &self.head, &self.head_bytes)?;
        if let (Some(entry), Some(id)) = (entry.as_deref_mut(), id) {
            entry.authenticated(id);
        }
        let keys = site.keys(&live);
        let mut session = OpenSession::shared(&keys, site.open_policy());
        let body = self.body(&mut session, totals).await;
        totals.opening = session.counts();
        let body = body?;
        let framing = match &body {
            Body::None => OutgoingFraming::None,
            Body::Here { length, .. } => framed(*length),
            Body::Held { bytes, .. } => framed(bytes.len()),
            Body::Streamed(None) => match self.head.framing {
                RequestFraming::Length(length) => OutgoingFraming::Length(length),
                _ => OutgoingFraming::Chunked,
            },
            Body::Streamed(Some(_)) => OutgoingFraming::Chunked,
        };
        let additions = Additions {
            context,
            peer: self.client.peer.as_ref(),
            framing,
            forward_api_key: site.config.forward_api_key,
            is_websocket: accept.is_some(),
            host: &site.host,
        };
        let (head, bytes, out) = (&self.head, &self.head_bytes, &mut self.out);
        let written = judge::open_head(site, &mut session, |session| {
            out.clear();
            write_head(head, bytes, &additions, session, out)
        });
        let written = written.await;
        totals.opening = session.counts();
        written?;
        let returned = match body {
            Body::Streamed(scanner) => {
                self.stream(context, scanner, &mut session, totals, entry)
                    .await
            }
            Body::Here { length, _room } if length >= WORTH_BYTES => {
                self.send_whole(context, length, false, None, totals, entry)
                    .await
            }
            Body::Here { length, .. } => {
                let body = self.inbox.rest().get(..length).unwrap_or_default();
                self.out.extend_from_slice(body);
                self.leave_body(length);
                self.send_whole(context, 0, false, None, totals, entry)
                    .await
            }
            Body::Held { bytes, .. } => {
                self.out.extend_from_slice(&bytes);
                drop(bytes);
                self.send_whole(context, 0, false, None, totals, entry)
                    .await
            }
            Body::None => {
                let is_idempotent = judge::is_idempotent(self.head.method.of(&self.head_bytes));
                self.send_whole(context, 0, is_idempotent, accept.as_ref(), totals, entry)
                    .await
            }
        };
        totals.opening = session.counts();
        returned
    }

    /// Decides how the body is treated, and opens it when it is held whole.
    async fn body(
        &mut self,
        session: &mut OpenSession<'_>,
        totals: &mut Totals,
    ) -> Result<Body, Fault> {
        let settings = &self.site.settings;
        let length = match self.head.framing {
            RequestFraming::None => return Ok(Body::None),
            RequestFraming::Chunked => None,
            RequestFraming::Length(length) => Some(length),
        };
        judge::length(settings, length)?;
        let Some(place) = judge::place(&self.head.fields, &self.head_bytes) else {
            return Ok(Body::Streamed(None));
        };
        match length.filter(|length| *length <= settings.decrypt_buffer) {
            None => {
                let scanner = Scanner::new(place, judge::scan_limits(settings));
                Ok(Body::Streamed(Some(scanner)))
            }
            Some(length) => {
                let room = self.site.hold(length).ok_or_else(no_room)?;
                self.go_ahead().await?;
                let length = self.gather(length, totals).await?;
                let body = self.inbox.rest().get(..length).unwrap_or_default();
                if !may_need_scan(place, body) {
                    return Ok(Body::Here {
                        length,
                        _room: room,
                    });
                }
                let opened = judge::open_whole(self.site, place, body, session).await;
                self.leave_body(length);
                Ok(Body::Held {
                    bytes: opened?,
                    _room: room,
                })
            }
        }
    }

    /// Reads a body whole, so that a failure has no effect on the user process; gives its length.
    async fn gather(&mut self, length: u64, totals: &mut Totals) -> Result<usize, Fault> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        while self.inbox.rest().len() < length {
            let fill = self.inbox.fill_towards(&mut self.client.stream, length);
            match self
                .deadline
                .within(self.site.settings.body_idle, fill)
                .await
            {
                Err(_elapsed) => return Err(Refusal::new(408, "the body took too long").into()),
                Ok(Ok(count)) if count > 0 => {}
                Ok(_) => return Err(Fault::Broken),
            }
        }
        totals.bytes_in = u64::try_from(length).unwrap_or(u64::MAX);
        Ok(length)
    }

    /// Puts a body that is whole in the inbox behind us. Until then a refusal passes over it, so that
    /// no byte of it becomes a request.
    fn leave_body(&mut self, length: usize) {
        self.inbox.consume(length);
        self.inbox.shrink_to(KEPT_BYTES);
        self.head.framing = RequestFraming::None;
    }

    /// Answers `Expect: 100-continue`, once the request was let in.
    async fn go_ahead(&mut self) -> Result<(), Fault> {
        if !self.head.expects_continue {
            return Ok(());
        }
        self.head.expects_continue = false;
        let stream = &mut self.client.stream;
        let write = async {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            stream.flush().await
        };
        match self
            .deadline
            .within(self.site.settings.body_idle, write)
            .await
        {
            Ok(Ok(())) => Ok(()),
            _ => Err(Fault::Broken),
        }
    }

    /// Sends a request that is all here, and the response back. The head is in `out`, perhaps with
    /// the body; else `body` says how many bytes of the inbox that is.
    async fn send_whole(
        &mut self,
        context: &[u8; 32],
        mut body: usize,
        may_replay: bool,
        accept: Option<&Accept>,
        totals: &mut Totals,
        mut entry: Option<&mut Entry>,
    ) -> Result<Exchanged, Fault> {
        let site = self.site;
        let request = std::mem::take(&mut self.out);
        let mut upstream = site
            .pool
            .take()
            .await
            .map_err(|error| Refusal::unreachable(&error))?;
        let returned = loop {
            let behind = self.inbox.rest().get(..body).unwrap_or_default();
            let write = write_both(&mut upstream.stream, &request, behind);
            let sent = self.deadline.within(site.settings.body_idle, write).await;
            if body > 0 {
                // A request with a body is not sent twice.
                self.leave_body(std::mem::take(&mut body));
            }
            let has_begun = Cell::new(false);
            let is_over = AtomicBool::new(true);
            let download = Download {
                accept,
                ..self.download(context, &has_begun, &is_over, totals, entry.as_deref_mut())
            };
            let (reader, client) = (&mut upstream.stream, &mut self.client.stream);
            let returned = match sent {
                // A process that answers early and reads no further is heard all the same.
                Ok(_) => download.run(reader, client).await,
                Err(_elapsed) => Err(Fault::from(Refusal::new(
                    504,
                    "the user process does not read",
                ))),
            };
            match returned {
                Ok(Returned::Stale) if upstream.is_reused && may_replay => {
                    site.counters.upstream(UpstreamUse::Stale);
                    upstream = site
                        .pool
                        .connect()
                        .await
                        .map_err(|error| Refusal::unreachable(&error))?;
                }
                other => break other,
            }
        };
        self.out = request;
        self.finish(returned, upstream, true)
    }

    /// Sends a request whose body is still arriving, and the response back, both at once.
    async fn stream(
        &mut self,
        context: &[u8; 32],
        scanner: Option<Scanner>,
        session: &mut OpenSession<'_>,
        totals: &mut Totals,
        entry: Option<&mut Entry>,
    ) -> Result<Exchanged, Fault> {
        let site = self.site;
        let mut upstream = site
            .pool
            .take()
            .await
            .map_err(|error| Refusal::unreachable(&error))?;
        self.go_ahead().await?;
        let has_begun = Cell::new(false);
        let is_over = AtomicBool::new(false);
        let received = Cell::new(0);
        let source = Source::new(self.head.framing, site.settings.chunks);
        let outcome = {
            let (mut client_reads, mut client_writes) = tokio::io::split(&mut self.client.stream);
            let (mut process_reads, mut process_writes) = tokio::io::split(&mut upstream.stream);
            let upload = Upload {
                site,
                settings: &site.settings,
                inbox: &mut self.inbox,
                source,
                scanner,
                session,
                received: &received,
                out: std::mem::take(&mut self.out),
                room: Vec::new(),
                job: site.opening.job(),
                deadline: Deadline::default(),
            };
            let download = Download {
                site,
                context,
                method_is_head: self.head.method.of(&self.head_bytes) == b"HEAD",
                client_version: self.head.version,
                is_persistent: self.head.is_persistent,
                has_begun: &has_begun,
                is_request_over: &is_over,
                accept: None,
                totals,
                entry,
                deadline: Deadline::default(),
            };
            let upload = upload.run(&mut client_reads, &mut process_writes);
            let download = download.run(&mut process_reads, &mut client_writes);
            tokio::pin!(upload, download);
            let mut is_uploading = true;
            loop {
                tokio::select! {
                    biased;
                    ended = &mut upload, if is_uploading => {
                        is_uploading = false;
                        match ended {
                            Ok(is_whole) => {
                                is_over.store(is_whole, std::sync::atomic::Ordering::Relaxed);
                            }
                            Err(fault) => break Err(fault),
                        }
                    }
                    returned = &mut download => break returned,
                }
            }
        };
        let is_whole = is_over.into_inner();
        totals.bytes_in = received.get();
        match outcome {
            // A response that has begun cannot become another one.
            Err(Fault::Refused(_)) if has_begun.get() => Err(Fault::Broken),
            Err(fault) => Err(fault),
            Ok(returned) => self.finish(Ok(returned), upstream, is_whole),
        }
    }

    fn download<'d>(
        &self,
        context: &'d [u8; 32],
        has_begun: &'d Cell<bool>,
        is_request_over: &'d AtomicBool,
        totals: &'d mut Totals,
        entry: Option<&'d mut Entry>,
    ) -> Download<'d>
    where
        Self: 'd,
    {
        Download {
            site: self.site,
            context,
            method_is_head: self.head.method.of(&self.head_bytes) == b"HEAD",
            client_version: self.head.version,
            is_persistent: self.head.is_persistent,
            has_begun,
            is_request_over,
            accept: None,
            totals,
            entry,
            deadline: Deadline::default(),
        }
    }

    /// Puts the connection to the user process back when it may be used again.
    fn finish(
        &self,
        returned: Result<Returned, Fault>,
        upstream: Upstream,
        is_request_over: bool,
    ) -> Result<Exchanged, Fault> {
        match returned? {
            Returned::Stale => {
                let refusal = Refusal::new(502, "the user process closed the connection");
                Err(refusal.of_process(UpstreamError::Closed).into())
            }
            Returned::Switched => Ok(Exchanged::Switched(Box::new(upstream.stream))),
            Returned::Whole {
                keeps_client,
                keeps_process,
            } => {
                if keeps_process && is_request_over {
                    self.site.pool.put(upstream.stream);
                }
                let is_kept = keeps_client && is_request_over;
                Ok(Exchanged::Answered { is_kept })
            }
        }
    }
}

fn framed(length: usize) -> OutgoingFraming {
    OutgoingFraming::Length(u64::try_from(length).unwrap_or(u64::MAX))
}

/// Whether a response to this client can be chunked.
pub(super) fn takes_chunks(version: HttpVersion) -> bool {
    version == HttpVersion::V1_1
}
