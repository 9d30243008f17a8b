//! Tokens in JSON: only inside strings, never in keys, with one level of escaping.
//!
//! The scanner follows strings and containers, nothing else: it accepts what is not JSON and passes
//! it on. A string is a key when it stands in an object after `{` or `,`. Inside a string
//! [`StringState`] tells when it is inside JSON that was itself written into a string: a token there
//! passes unchanged, because a clear text escaped once could end the inner string and add fields to
//! the inner document.

use memchr::memchr3;

use super::sink::Sink;
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
    /// This container is an object.
    is_object: bool,
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
        self.is_object = is_object;
        self.is_key_next = is_object;
        true
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.is_object = self.is_in_object();
        self.is_key_next = false;
    }

    /// Follows bytes outside strings up to the quote that begins one, and says where that is.
    fn outside(&mut self, bytes: &[u8]) -> Result<Option<usize>, usize> {
        for (count, byte) in bytes.iter().enumerate() {
            match byte {
                b'{' | b'[' if !self.open(*byte == b'{') => return Err(count),
                b'}' | b']' => self.close(),
                b',' => self.is_key_next = self.is_object,
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
        state: &mut JsonState,
        piece: &mut Piece<'_>,
        out: &mut impl Sink,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        let mut progress = Progress::Done;
        while piece.at < piece.bytes.len() && matches!(progress, Progress::Done) {
            progress = if state.string.is_some() {
                self.inside(state, piece, out, session)?
            } else {
                self.outside(state, piece, out, session)?
            };
        }
        piece.flush(out);
        Ok(progress)
    }

    /// Keeps everything up to a string, and enters it.
    fn outside(
        &mut self,
        state: &mut JsonState,
        piece: &mut Piece<'_>,
        out: &mut impl Sink,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        let rest = piece.rest();
        match state.outside(rest) {
            Err(before) => {
                piece.keep(before);
                Err(self.error(piece, OpenError::TooDeep { limit: MAX_NESTING }))
            }
            Ok(Some(before)) => {
                piece.keep(before);
                self.quote(state, piece, out, session)
            }
            Ok(None) => {
                piece.keep(rest.len());
                Ok(Progress::Done)
            }
        }
    }

    /// The piece stands on a quote that begins a string. When a token follows it directly, the quote
    /// is held back with it: a number goes without its quotes.
    fn quote(
        &mut self,
        state: &mut JsonState,
        piece: &mut Piece<'_>,
        out: &mut impl Sink,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        let is_key = state.is_key_next;
        let inside = piece.rest().get(1..).unwrap_or_default();
        let string = StringState::new(is_key);
        let may_start = match inside.first_chunk() {
            Some(first) => first == START,
            None => START.starts_with(inside),
        };
        let is_short = inside.len() < START.len();
        if is_key || !may_start || (is_short && piece.is_last) {
            piece.keep(1);
            // Most strings say nothing: they are passed without being entered.
            match special(inside).and_then(|at| inside.get(..=at)) {
                Some(all @ [.., b'"']) => piece.keep(all.len()),
                _ => state.string = Some(string),
            }
            return Ok(Progress::Done);
        }
        if is_short {
            return Ok(Progress::Hold);
        }
        let mut value = *piece;
        value.keep(1);
        let token = match self.candidate(&value, true)? {
            Candidate::Hold => return Ok(Progress::Hold),
            Candidate::No => None,
            Candidate::Token(token) => Some(token),
        };
        let Some(token) = token else {
            piece.keep(START.len().saturating_add(1));
            state.string = Some(string);
            return Ok(Progress::Done);
        };
        let next = value.rest().get(token.length).copied();
        if next.is_none() && !piece.is_last {
            // Whether it is the whole string is decided by the next byte; the match is not repeated
            // from its start for more than this one byte.
            return Ok(Progress::Hold);
        }
        let opened = self.open_with(&value, &token, session, |kind, clear| {
            let is_whole = next == Some(b'"');
            if is_whole && kind != ValueType::String {
                piece.skip(token.length.saturating_add(2), out);
                out.put(clear);
                return None;
            }
            piece.keep(1);
            piece.skip(token.length, out);
            write::escaped(clear, out);
            if is_whole {
                piece.keep(1);
                return None;
            }
            Some(string)
        })?;
        let Some(string) = opened else {
            return Ok(Progress::Hold);
        };
        state.string = string;
        Ok(Progress::Done)
    }

    /// Keeps a string up to its end, a token in it, or the end of the piece.
    fn inside(
        &mut self,
        state: &mut JsonState,
        piece: &mut Piece<'_>,
        out: &mut impl Sink,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        while let Some(string) = &mut state.string {
            let rest = piece.rest();
            // Escapes come together, and nothing has to be searched where one stands.
            let special = match rest.first() {
                Some(b'"' | b'\\') => Some(0),
                _ if string.is_in_escape() => Some(0),
                _ => special(rest),
            };
            let Some(at) = special else {
                // The last bytes may be the start of a start.
                let held = if piece.is_last {
                    0
                } else {
                    partial_start(rest)
                };
                let decided = rest.len().saturating_sub(held);
                if decided > 0 {
                    string.other();
                    piece.keep(decided);
                }
                return Ok(if held > 0 {
                    Progress::Hold
                } else {
                    Progress::Done
                });
            };
            let (plain, byte) = (rest.get(..at).unwrap_or_default(), rest.get(at));
            if byte == Some(&b':')
                && let Some(before) = plain.strip_suffix(BEFORE_COLON)
            {
                if !before.is_empty() {
                    string.other();
                    piece.keep(before.len());
                }
                match self.embedded(string, piece, out, session)? {
                    Progress::Done => continue,
                    Progress::Hold => return Ok(Progress::Hold),
                }
            }
            if !plain.is_empty() {
                string.other();
            }
            let is_end = byte.is_some_and(|byte| string.feed(*byte));
            piece.keep(at.saturating_add(1));
            if is_end {
                state.string = None;
            }
            if piece.at >= piece.bytes.len() {
                break;
            }
        }
        Ok(Progress::Done)
    }

    /// The piece stands on an `ev:` inside a string.
    fn embedded(
        &mut self,
        string: &mut StringState,
        piece: &mut Piece<'_>,
        out: &mut impl Sink,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        let is_after_quote = string.is_after_quote();
        if string.keeps_tokens() {
            piece.keep(START.len());
        } else {
            match self.candidate(piece, true)? {
                Candidate::Hold => return Ok(Progress::Hold),
                Candidate::No => piece.keep(START.len()),
                Candidate::Token(token) => {
                    // Between two quotes of the text it is JSON in JSON, whatever came before.
                    match piece.rest().get(token.length) {
                        None if is_after_quote && !piece.is_last => return Ok(Progress::Hold),
                        Some(b'\\') if is_after_quote => piece.keep(token.length),
                        _ => {
                            let here = *piece;
                            let opened = self.open_with(&here, &token, session, |_, clear| {
                                piece.skip(token.length, out);
                                write::escaped(clear, out);
                            })?;
                            if opened.is_none() {
                                return Ok(Progress::Hold);
                            }
                        }
                    }
                }
            }
        }
        string.other();
        Ok(Progress::Done)
    }
}

/// Where the first byte of a string is that says something: a quote, a reverse solidus, or the colon
/// that ends `ev:`. Text has few colons, so that a string is searched once for all three. Most strings
/// are short, and colons come together: a search that has to be set up pays for itself only behind
/// the first bytes.
fn special(bytes: &[u8]) -> Option<usize> {
    let says = |at: usize| {
        bytes.get(at) != Some(&b':')
            || bytes
                .get(..at)
                .is_some_and(|before| before.ends_with(BEFORE_COLON))
    };
    let mut from = 0_usize;
    loop {
        let (octets, _) = bytes.get(from..).unwrap_or_default().as_chunks::<8>();
        for octet in octets.iter().take(NEAR_OCTETS) {
            let mut hits = hits(*octet);
            while hits != 0 {
                let bits = usize::try_from(hits.trailing_zeros()).unwrap_or(0);
                let at = from.saturating_add(bits / 8);
                if says(at) {
                    return Some(at);
                }
                hits &= hits.wrapping_sub(1);
            }
            from = from.saturating_add(8);
        }
        let [quote, solidus, colon] = SPECIAL;
        let found = memchr3(quote, solidus, colon, bytes.get(from..).unwrap_or_default())?;
        let at = from.saturating_add(found);
        if says(at) {
            return Some(at);
        }
        from = at.saturating_add(1);
    }
}

/// The highest bit of each byte that is one of [`SPECIAL`], the first byte lowest.
fn hits(octet: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(octet);
    let others = u64::from_le_bytes([0x7F; 8]);
    SPECIAL.iter().fold(0, |hits, byte| {
        let zero = word ^ u64::from_le_bytes([*byte; 8]);
        // Nothing is carried from one byte to the next.
        hits | !((zero & others).wrapping_add(others) | zero | others)
    })
}

const SPECIAL: [u8; 3] = *b"\"\\:";
/// What stands before the colon at the start of a token.
const BEFORE_COLON: &[u8; 2] = b"ev";
/// How many times eight bytes are looked at before a search is set up.
const NEAR_OCTETS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_hand(bytes: &[u8]) -> Option<usize> {
        let mut places = bytes.iter().enumerate();
        let found = places.find(|(at, byte)| match byte {
            b'"' | b'\\' => true,
            b':' => bytes[..*at].ends_with(b"ev"),
            _ => false,
        });
        found.map(|(at, _)| at)
    }

    /// Near, at the border and far, beside bytes that a carry could make look like a hit.
    #[test]
    fn every_byte_is_found_where_it_is() {
        for filler in [0, 0x21, 0x23, 0x3B, 0x5D, 0x80, 0xFF] {
            for at in 0..60 {
                for byte in 0..=255 {
                    let mut bytes = [filler; 60];
                    bytes[at] = byte;
                    assert_eq!(special(&bytes), by_hand(&bytes), "{filler} {at} {byte}");
                    if let Some(before) = bytes[..at].last_chunk_mut() {
                        *before = *b"ev";
                    }
                    assert_eq!(special(&bytes), by_hand(&bytes), "ev {filler} {at} {byte}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_first_is_found(text in "[a-z:]{0,30}(:|e|v|ev:|é){0,30}[:\"\\\\]?.{0,9}") {
            prop_assert_eq!(special(text.as_bytes()), by_hand(text.as_bytes()));
        }
    }
}
