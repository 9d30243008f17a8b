//! Finding tokens in a body that arrives in pieces, and writing what they hold in their place.
//!
//! One pass, constant memory: what is held back is at most a token that is not complete yet. The
//! result never depends on where a piece ends. Everything that is not a token passes byte for byte,
//! invalid UTF-8 and invalid JSON included. What is written for a token is decided by
//! [`json`](self) rules in JSON, percent-encoded in forms, and raw in text. The parts of a multipart
//! body are bodies of their own.

use std::sync::LazyLock;

use memchr::memmem;
use thiserror::Error;

use crate::open::{OpenError, OpenSession, Opened};
use crate::place::Place;
use crate::token::{self, Matcher, START, Step, Token};
use crate::version::ValueType;

mod form;
mod json;
mod multipart;
mod piece;
mod sink;
mod spliced;
mod string;
mod write;

use form::FormState;
use json::JsonState;
use multipart::MultipartState;
use piece::Piece;
use sink::Sink;
pub use spliced::{Spliced, open_json};

/// Bounds of a scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanLimits {
    /// Longest encrypted file, in bytes.
    pub max_file: usize,
    /// Longest token, in bytes.
    pub max_token: usize,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self {
            max_file: 25 << 20,
            max_token: 1 << 20,
        }
    }
}

/// What a whole scan did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanSummary {
    /// Tokens that were opened.
    pub fields_opened: u64,
}

/// A token that could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{reason}, at byte {offset} of the body")]
pub struct ScanError {
    /// Where the token starts, in bytes from the start of the body.
    pub offset: u64,
    /// Why.
    #[source]
    pub reason: OpenError,
}

/// Whether a body can hold a token at all, where tokens are written as they are. A body without `ev:`
/// needs no scanner.
pub fn may_contain_token(body: &[u8]) -> bool {
    SEARCH.find(body).is_some()
}

/// The same for a body of a certain kind: in forms tokens are written with `%`, and parts of a
/// multipart body may be such forms, or encrypted files.
pub fn may_need_scan(place: Place, body: &[u8]) -> bool {
    match place {
        Place::Detect | Place::Json | Place::Text => may_contain_token(body),
        Place::Form | Place::Multipart(_) => form::may_contain_token(body),
    }
}

/// Scans one body.
#[derive(Debug)]
pub struct Scanner {
    mode: Mode,
    limits: ScanLimits,
    /// Bytes that arrived and were not decided yet.
    held: Vec<u8>,
    /// Offset in the body of the first undecided byte.
    offset: u64,
    /// A candidate at the start of what is held: how far it was matched.
    candidate: Option<Matcher>,
    fields_opened: u64,
    /// The session was paused: what is held may be decided already.
    is_paused: bool,
}

#[derive(Debug)]
enum Mode {
    Detect,
    Form(Box<FormState>),
    Json(JsonState),
    Multipart(Box<MultipartState>),
    Text,
}

/// What deciding a piece came to.
enum Progress {
    /// All of it is decided.
    Done,
    /// The rest needs more bytes.
    Hold,
}

impl Scanner {
    /// A scanner at the start of a body.
    pub fn new(place: Place, limits: ScanLimits) -> Self {
        let mode = match place {
            Place::Detect => Mode::Detect,
            Place::Form => Mode::Form(Box::default()),
            Place::Json => Mode::Json(JsonState::default()),
            Place::Multipart(boundary) => Mode::Multipart(Box::new(MultipartState::new(&boundary))),
            Place::Text => Mode::Text,
        };
        Self {
            mode,
            limits,
            held: Vec::new(),
            offset: 0,
            candidate: None,
            fields_opened: 0,
            is_paused: false,
        }
    }

    /// Takes a piece of the body and appends to `out` what is decided.
    ///
    /// When it leaves the session paused, grant it keys and go on with [`Scanner::resume`]. Pushing
    /// more instead is right, too, but what is held grows.
    ///
    /// # Errors
    ///
    /// [`ScanError`] for a token that cannot be opened; the scanner must not be used after it.
    pub fn push(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<(), ScanError> {
        if input.is_empty() && !self.is_paused {
            return Ok(());
        }
        if self.held.is_empty() {
            let decided = self.run(input, false, out, session)?;
            self.hold(input.get(decided..).unwrap_or_default());
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(input);
        let decided = self.run(&held, false, out, session)?;
        held.drain(..decided);
        self.held = held;
        Ok(())
    }

    /// Goes on where the session was paused.
    ///
    /// # Errors
    ///
    /// As [`Scanner::push`].
    pub fn resume(
        &mut self,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<(), ScanError> {
        self.push(&[], out, session)
    }

    /// Ends the body: what was held back is no token and passes.
    ///
    /// When it leaves the session paused, the body has not ended: grant it keys and call it again.
    ///
    /// # Errors
    ///
    /// As [`Scanner::push`]: what is held may be an ordinary string in which a token stands.
    pub fn finish(
        &mut self,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<ScanSummary, ScanError> {
        let mut held = std::mem::take(&mut self.held);
        let decided = self.run(&held, true, out, session)?;
        held.drain(..decided);
        self.held = held;
        Ok(ScanSummary {
            fields_opened: self.fields_opened,
        })
    }

    /// Bytes of the body that are held back, and what is kept to go on.
    pub fn held(&self) -> usize {
        let inner = match &self.mode {
            Mode::Multipart(state) => state.held(),
            Mode::Form(state) => state.held(),
            Mode::Detect | Mode::Json(_) | Mode::Text => 0,
        };
        self.held.capacity().saturating_add(inner)
    }

    fn hold(&mut self, rest: &[u8]) {
        self.held.extend_from_slice(rest);
    }

    /// Decides as much of `bytes` as it can and returns how many bytes that was.
    fn run(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<usize, ScanError> {
        if matches!(self.mode, Mode::Detect) {
            // White space, and the byte order mark (EF BB BF) that some writers begin with and some
            // readers pass over (RFC 8259 §8.1).
            let space =
                |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0xEF | 0xBB | 0xBF);
            let Some(first) = bytes.iter().find(|byte| !space(byte)) else {
                out.extend_from_slice(bytes);
                self.advance(bytes.len());
                return Ok(bytes.len());
            };
            let is_json = matches!(first, b'{' | b'[' | b'"');
            self.mode = if is_json {
                Mode::Json(JsonState::default())
            } else {
                Mode::Text
            };
        }
        let mut piece = Piece::new(bytes, is_last);
        self.is_paused = false;
        let progress = match std::mem::replace(&mut self.mode, Mode::Text) {
            Mode::Text => self.text(&mut piece, out, session)?,
            Mode::Form(mut state) => {
                let progress = self.form(&mut state, &mut piece, out, session)?;
                self.mode = Mode::Form(state);
                progress
            }
            Mode::Multipart(mut state) => {
                let progress = self.multipart(&mut state, &mut piece, out, session)?;
                self.mode = Mode::Multipart(state);
                progress
            }
            Mode::Json(mut state) => {
                let progress = self.json(&mut state, &mut piece, out, session)?;
                self.mode = Mode::Json(state);
                progress
            }
            // It has become one of the two others before a byte is decided.
            Mode::Detect => Progress::Hold,
        };
        let decided = match progress {
            Progress::Done => bytes.len(),
            Progress::Hold => piece.at,
        };
        self.advance(decided);
        Ok(decided)
    }

    fn text(
        &mut self,
        piece: &mut Piece<'_>,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        loop {
            let rest = piece.rest();
            let Some(found) = SEARCH.find(rest) else {
                // The last bytes may be the start of a start.
                let keep = if piece.is_last {
                    0
                } else {
                    partial_start(rest)
                };
                let decided = rest.len().saturating_sub(keep);
                piece.copy(decided, out);
                return Ok(if keep == 0 {
                    Progress::Done
                } else {
                    Progress::Hold
                });
            };
            piece.copy(found, out);
            match self.candidate(piece, false)? {
                Candidate::Hold => return Ok(Progress::Hold),
                Candidate::No => piece.copy(START.len(), out),
                Candidate::Token(token) => {
                    let here = *piece;
                    let opened = self.open_with(&here, &token, session, |_, clear| {
                        piece.skip(token.length, out);
                        out.put(clear);
                    })?;
                    if opened.is_none() {
                        return Ok(Progress::Hold);
                    }
                }
            }
        }
    }

    /// Matches the candidate at the piece's position, going on where the last piece ended.
    fn candidate(&mut self, piece: &Piece<'_>, is_json: bool) -> Result<Candidate, ScanError> {
        let max_token = self.limits.max_token;
        if self.candidate.is_none()
            && let Some(token) = token::common(piece.rest(), max_token)
        {
            return Ok(Candidate::Token(token));
        }
        let mut matcher = self
            .candidate
            .take()
            .unwrap_or_else(|| Matcher::new(is_json));
        let mut rest = piece.rest().get(matcher.fed()..).unwrap_or_default();
        loop {
            let room = max_token.saturating_sub(matcher.fed()).min(rest.len());
            let run = matcher.feed_run(rest.get(..room).unwrap_or_default());
            let Some((byte, after)) = rest.get(run..).and_then(<[u8]>::split_first) else {
                break;
            };
            if matcher.fed() >= max_token {
                return Err(self.error(piece, OpenError::TooLong { limit: max_token }));
            }
            match matcher.feed(*byte) {
                Step::More => rest = after,
                Step::No => return Ok(Candidate::No),
                Step::Complete(token) => return Ok(Candidate::Token(token)),
            }
        }
        if piece.is_last {
            return Ok(Candidate::No);
        }
        self.candidate = Some(matcher);
        Ok(Candidate::Hold)
    }

    /// Opens the token that the piece stands on, and shows `write` what it holds. `None`: the session
    /// is paused, and the piece is held from here on.
    fn open_with<T>(
        &mut self,
        piece: &Piece<'_>,
        token: &Token,
        session: &mut OpenSession<'_>,
        write: impl FnOnce(ValueType, &[u8]) -> T,
    ) -> Result<Option<T>, ScanError> {
        let opened = session.open_with(piece.rest(), token, write);
        self.counted(piece, opened)
    }

    /// The same for a token that `text` starts with; the piece stands where it is written.
    fn opened(
        &mut self,
        piece: &Piece<'_>,
        text: &[u8],
        token: &Token,
        session: &mut OpenSession<'_>,
    ) -> Result<Option<Opened>, ScanError> {
        let opened = session.open(text, token);
        self.counted(piece, opened)
    }

    fn counted<T>(
        &mut self,
        piece: &Piece<'_>,
        opened: Result<T, OpenError>,
    ) -> Result<Option<T>, ScanError> {
        match opened {
            Ok(opened) => {
                self.fields_opened = self.fields_opened.saturating_add(1);
                Ok(Some(opened))
            }
            Err(OpenError::Paused) => {
                self.is_paused = true;
                Ok(None)
            }
            Err(reason) => Err(self.error(piece, reason)),
        }
    }

    fn error(&self, piece: &Piece<'_>, reason: OpenError) -> ScanError {
        ScanError {
            offset: self.here(piece),
            reason,
        }
    }

    /// Where in the body the piece stands.
    fn here(&self, piece: &Piece<'_>) -> u64 {
        let at = u64::try_from(piece.at).unwrap_or(u64::MAX);
        self.offset.saturating_add(at)
    }

    fn advance(&mut self, bytes: usize) {
        self.offset = self
            .offset
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

enum Candidate {
    Hold,
    No,
    Token(Token),
}

/// How many of the last bytes are the start of `ev:`: 0, 1 or 2.
fn partial_start(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"ev") {
        2
    } else {
        usize::from(bytes.ends_with(b"e"))
    }
}

/// Searches for the start of a token; made once, as it costs more than to search a short text.
static SEARCH: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(START));

#[cfg(test)]
mod tests;
