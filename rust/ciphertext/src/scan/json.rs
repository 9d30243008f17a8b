//! Tokens in JSON: only inside strings, never in keys, with one level of escaping.
//!
//! The scanner follows strings and containers, nothing else: it accepts what is not JSON and passes
//! it on. A string is a key when it stands in an object after `{` or `,`. Inside a string
//! [`StringState`] tells when it is inside JSON that was itself written into a string: a token there
//! passes unchanged, because a clear text escaped once could end the inner string and add fields to
//! the inner document.

use memchr::memchr2;

use super::string::StringState;
use super::{Candidate, OpenSession, Piece, Progress, ScanError, Scanner, partial_start, write};
use crate::open::OpenError;
use crate::token::START;
use crate::version::ValueType;

/// Deepest nesting that is followed: one bit a level, 128 KiB in all. Beyond it the body is refused.
const MAX_NESTING: usize = 1 << 20;

/// Where in the document the scanner is.
#[derive(Debug, Default)]
pub(super) struct JsonState {
    /// One bit a container, set for an object.
    objects: Vec<u64>,
    depth: usize,
    /// The next string in this container is a key.
    is_key_next: bool,
    string: Option<StringState>,
}

impl JsonState {
    fn open(&mut self, is_object: bool) -> bool {
        if self.depth >= MAX_NESTING {
            return false;
        }
        let (word, bit) = (self.depth / 64, 1_u64 << (self.depth % 64));
        if self.objects.len() <= word {
            self.objects.push(0);
        }
        if let Some(slot) = self.objects.get_mut(word) {
            *slot = if is_object { *slot | bit } else { *slot & !bit };
        }
        self.depth = self.depth.saturating_add(1);
        self.is_key_next = is_object;
        true
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.is_key_next = false;
    }

    /// Follows bytes in which no token can stand. On nesting over the limit: how many bytes came
    /// before it.
    fn skim(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0_usize;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(string) = &mut self.string else {
                let Some(found) = self.outside(rest).map_err(|n| at.saturating_add(n))? else {
                    return Ok(());
                };
                self.string = Some(StringState::new(self.is_key_next));
                at = at.saturating_add(found).saturating_add(1);
                continue;
            };
            let plain = if string.is_in_escape() {
                0
            } else {
                plain_length(rest)
            };
            if plain > 0 {
                string.other();
            }
            if rest.get(plain).is_some_and(|byte| string.feed(*byte)) {
                self.string = None;
            }
            at = at.saturating_add(plain).saturating_add(1);
        }
        Ok(())
    }

    /// Follows bytes outside strings up to the quote that begins one, and says where that is.
    fn outside(&mut self, bytes: &[u8]) -> Result<Option<usize>, usize> {
        for (count, byte) in bytes.iter().enumerate() {
            match byte {
                b'{' | b'[' if !self.open(*byte == b'{') => return Err(count),
                b'}' | b']' => self.close(),
                b',' => self.is_key_next = self.is_in_object(),
                b':' => self.is_key_next = false,
                b'"' => return Ok(Some(count)),
                _ => {}
            }
        }
        Ok(None)
    }

    fn is_in_object(&self) -> bool {
        let Some(last) = self.depth.checked_sub(1) else {
            return false;
        };
        self.objects
            .get(last / 64)
            .is_some_and(|word| word & (1 << (last % 64)) != 0)
    }
}

impl Scanner {
    pub(super) fn json(
        &mut self,
        piece: &mut Piece<'_>,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        while piece.at < piece.bytes.len() {
            // Far from a token there is nothing to decide: follow it, then pass it on in one go.
            let until = match piece.next_start() {
                Some(start) => start.saturating_sub(1),
                None if piece.is_last => piece.bytes.len(),
                None => piece.bytes.len().saturating_sub(START.len()),
            };
            if let Some(far) = piece
                .bytes
                .get(piece.at..until)
                .filter(|far| !far.is_empty())
            {
                let followed = self.state().skim(far);
                piece.copy(followed.err().unwrap_or(far.len()), out);
                if followed.is_err() {
                    return Err(self.too_deep(piece));
                }
                continue;
            }
            let is_in_string = self.state().string.is_some();
            let progress = if is_in_string {
                self.inside(piece, out, session)?
            } else {
                self.outside(piece, out, session)?
            };
            if matches!(progress, Progress::Hold) {
                return Ok(Progress::Hold);
            }
        }
        Ok(Progress::Done)
    }

    fn too_deep(&self, piece: &Piece<'_>) -> ScanError {
        self.error(piece, OpenError::TooDeep { limit: MAX_NESTING })
    }

    fn state(&mut self) -> &mut JsonState {
        // `Detect` has become one of the two others before a byte is decided.
        if !matches!(self.mode, super::Mode::Json(_)) {
            self.mode = super::Mode::Json(JsonState::default());
        }
        match &mut self.mode {
            super::Mode::Json(state) => state,
            _ => {
                #[expect(clippy::unreachable, reason = "the line above has just set it")]
                {
                    unreachable!("the mode is JSON")
                }
            }
        }
    }

    /// Passes on everything up to a string, and enters it.
    fn outside(
        &mut self,
        piece: &mut Piece<'_>,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        let rest = piece.rest();
        match self.state().outside(rest) {
            Err(before) => {
                piece.copy(before, out);
                Err(self.too_deep(piece))
            }
            Ok(Some(before)) => {
                piece.copy(before, out);
                self.quote(piece, out, session)
            }
            Ok(None) => {
                piece.copy(rest.len(), out);
                Ok(Progress::Done)
            }
        }
    }

    /// The piece stands on a quote that begins a string. When a token follows it directly, the quote
    /// is held back with it: a number goes without its quotes.
    fn quote(
        &mut self,
        piece: &mut Piece<'_>,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        let is_key = self.state().is_key_next;
        let inside = piece.rest().get(1..).unwrap_or_default();
        let string = StringState::new(is_key);
        let may_start = START.starts_with(inside.get(..3).unwrap_or(inside));
        let is_short = inside.len() < START.len();
        if is_key || !may_start || (is_short && piece.is_last) {
            piece.copy(1, out);
            self.state().string = Some(string);
            return Ok(Progress::Done);
        }
        if is_short {
            return Ok(Progress::Hold);
        }
        let mut value = Piece {
            bytes: piece.bytes,
            at: piece.at.saturating_add(1),
            ..*piece
        };
        let token = match self.candidate(&value, true)? {
            Candidate::Hold => return Ok(Progress::Hold),
            Candidate::No => None,
            Candidate::Token(token) => Some(token),
        };
        let Some(token) = token else {
            piece.copy(START.len().saturating_add(1), out);
            self.state().string = Some(string);
            return Ok(Progress::Done);
        };
        let next = value.rest().get(token.length).copied();
        if next.is_none() && !piece.is_last {
            // Whether it is the whole string is decided by the next byte; the match is not repeated
            // from its start for more than this one byte.
            return Ok(Progress::Hold);
        }
        let Some(opened) = self.open(&value, &token, session)? else {
            return Ok(Progress::Hold);
        };
        value.at = value.at.saturating_add(token.length);
        if next == Some(b'"') && opened.kind != ValueType::String {
            out.extend_from_slice(&opened.clear);
            piece.at = value.at.saturating_add(1);
            return Ok(Progress::Done);
        }
        out.push(b'"');
        write::escaped(&opened.clear, out);
        piece.at = value.at;
        self.state().string = Some(string);
        Ok(Progress::Done)
    }

    /// Passes on a string up to its end, a token in it, or the end of the piece.
    fn inside(
        &mut self,
        piece: &mut Piece<'_>,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        while piece.at < piece.bytes.len() {
            let start = piece.next_start();
            let Some(string) = &mut self.state().string else {
                return Ok(Progress::Done);
            };
            let rest = piece.rest();
            let before = start.map_or(rest.len(), |start| start.saturating_sub(piece.at));
            let plain = rest.get(..before).unwrap_or_default();
            let special = if string.is_in_escape() {
                Some(0)
            } else {
                memchr2(b'"', b'\\', plain)
            };
            if let Some(found) = special {
                if found > 0 {
                    string.other();
                }
                let is_end = rest.get(found).is_some_and(|byte| string.feed(*byte));
                piece.copy(found.saturating_add(1), out);
                if is_end {
                    self.state().string = None;
                    return Ok(Progress::Done);
                }
                continue;
            }
            // The last bytes may be the start of a start.
            let keep = if start.is_some() || piece.is_last {
                0
            } else {
                partial_start(plain)
            };
            let decided = plain.len().saturating_sub(keep);
            if decided > 0 {
                string.other();
                piece.copy(decided, out);
            }
            if keep > 0 {
                return Ok(Progress::Hold);
            }
            if start.is_some() && matches!(self.embedded(piece, out, session)?, Progress::Hold) {
                return Ok(Progress::Hold);
            }
        }
        Ok(Progress::Done)
    }

    /// The piece stands on an `ev:` inside a string.
    fn embedded(
        &mut self,
        piece: &mut Piece<'_>,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        let Some(string) = &self.state().string else {
            return Ok(Progress::Done);
        };
        let is_after_quote = string.is_after_quote();
        if string.keeps_tokens() {
            piece.copy(START.len(), out);
        } else {
            match self.candidate(piece, true)? {
                Candidate::Hold => return Ok(Progress::Hold),
                Candidate::No => piece.copy(START.len(), out),
                Candidate::Token(token) => {
                    // Between two quotes of the text it is JSON in JSON, whatever came before.
                    match piece.rest().get(token.length) {
                        None if is_after_quote && !piece.is_last => return Ok(Progress::Hold),
                        Some(b'\\') if is_after_quote => piece.copy(token.length, out),
                        _ => {
                            let Some(opened) = self.open(piece, &token, session)? else {
                                return Ok(Progress::Hold);
                            };
                            write::escaped(&opened.clear, out);
                            piece.at = piece.at.saturating_add(token.length);
                        }
                    }
                }
            }
        }
        if let Some(string) = &mut self.state().string {
            string.other();
        }
        Ok(Progress::Done)
    }
}

/// How many bytes come before a quote or a reverse solidus. Most strings are short: a search that has
/// to be set up pays for itself only behind the first bytes.
fn plain_length(bytes: &[u8]) -> usize {
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\');
    let (near, far) = bytes.split_at(bytes.len().min(NEAR_BYTES));
    near.iter()
        .position(is_special)
        .or_else(|| memchr2(b'"', b'\\', far).map(|found| found.saturating_add(near.len())))
        .unwrap_or(bytes.len())
}

const NEAR_BYTES: usize = 16;
