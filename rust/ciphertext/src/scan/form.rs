//! Tokens in forms (`application/x-www-form-urlencoded`): a value that is wholly one token.
//!
//! Clients write `:`, `$`, `+` and `/` of a token as `%3A` and so on, in either letter case, or as
//! they are; some encode letters too. A value is decoded byte by byte while it may still become a
//! token, and passes as it was written when it turns out to be none. A `+` as it is stands for a
//! space ([URL] §5.1), which no token has: in a token it can only be a `+` that somebody did not
//! encode, so it is taken for one. Names of fields are never replaced.
//!
//! [URL]: https://url.spec.whatwg.org/#application/x-www-form-urlencoded

use memchr::{memchr, memchr2};
use zeroize::Zeroizing;

use super::{OpenSession, Piece, Progress, ScanError, Scanner};
use crate::open::OpenError;
use crate::token::{Matcher, Step, Token};

/// Where in the form the scanner is.
#[derive(Debug, Default)]
pub(super) enum FormState {
    /// In a name, or before one.
    #[default]
    Name,
    /// In a value that may be a token.
    Value(Candidate),
    /// In a value that is none.
    Rest,
}

/// A value that may be a token.
#[derive(Debug)]
pub(super) struct Candidate {
    matcher: Matcher,
    /// Bytes of the body that were taken.
    raw: usize,
    /// What they stand for.
    text: Vec<u8>,
    /// Set once all of it was there: the value has to end now.
    token: Option<Token>,
}

impl Default for Candidate {
    fn default() -> Self {
        Self {
            matcher: Matcher::new(false),
            raw: 0,
            text: Vec::new(),
            token: None,
        }
    }
}

impl FormState {
    /// Bytes that are kept to go on.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Value(candidate) => candidate.text.capacity(),
            Self::Name | Self::Rest => 0,
        }
    }
}

/// What the bytes of a value came to.
enum Verdict {
    End,
    Hold,
    No,
    TooLong,
}

impl Candidate {
    /// Takes bytes of the value up to its end.
    fn take(&mut self, bytes: &[u8], is_last: bool, max_token: usize) -> Verdict {
        loop {
            let rest = bytes.get(self.raw..).unwrap_or_default();
            let (byte, length) = match unit(rest) {
                Unit::Byte(byte, length) => (byte, length),
                Unit::End => return Verdict::End,
                Unit::More if rest.is_empty() && is_last => return Verdict::End,
                Unit::More if is_last => return Verdict::No,
                Unit::More => return Verdict::Hold,
                Unit::Wrong => return Verdict::No,
            };
            if self.token.is_some() {
                return Verdict::No;
            }
            if self.text.len() >= max_token {
                return Verdict::TooLong;
            }
            match self.matcher.feed(byte) {
                Step::No => return Verdict::No,
                Step::More => {}
                Step::Complete(token) => self.token = Some(token),
            }
            self.text.push(byte);
            self.raw = self.raw.saturating_add(length);
        }
    }
}

/// One character of a value.
enum Unit {
    /// It, and how many bytes it is written in.
    Byte(u8, usize),
    /// The value ends before it.
    End,
    More,
    /// A `%` that begins nothing.
    Wrong,
}

fn unit(rest: &[u8]) -> Unit {
    let digit = |at: usize| {
        rest.get(at)
            .map(|byte| char::from(*byte).to_digit(16).map(u8::try_from))
    };
    match rest.first() {
        None => Unit::More,
        Some(b'&') => Unit::End,
        Some(b'%') => match (digit(1), digit(2)) {
            (Some(Some(Ok(high))), Some(Some(Ok(low)))) => Unit::Byte((high << 4) | low, 3),
            (None | Some(Some(_)), None) => Unit::More,
            _ => Unit::Wrong,
        },
        Some(byte) => Unit::Byte(*byte, 1),
    }
}

impl Scanner {
    /// Decides a piece of a form.
    pub(super) fn form(
        &mut self,
        state: &mut FormState,
        piece: &mut Piece<'_>,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        while piece.at < piece.bytes.len() || matches!(state, FormState::Value(_)) {
            let rest = piece.rest();
            match state {
                FormState::Name => {
                    let Some(found) = memchr2(b'=', b'&', rest) else {
                        piece.copy(rest.len(), out);
                        break;
                    };
                    if rest.get(found) == Some(&b'=') {
                        *state = FormState::Value(Candidate::default());
                    }
                    piece.copy(found.saturating_add(1), out);
                }
                FormState::Rest => {
                    let Some(found) = memchr(b'&', rest) else {
                        piece.copy(rest.len(), out);
                        break;
                    };
                    *state = FormState::Name;
                    piece.copy(found.saturating_add(1), out);
                }
                FormState::Value(candidate) => {
                    match candidate.take(rest, piece.is_last, self.limits.max_token) {
                        Verdict::Hold => return Ok(Progress::Hold),
                        Verdict::TooLong => {
                            let limit = self.limits.max_token;
                            return Err(self.error(piece, OpenError::TooLong { limit }));
                        }
                        Verdict::No => *state = FormState::Rest,
                        Verdict::End => {
                            if let Some(token) = candidate.token.take() {
                                let text = &candidate.text;
                                let Some(opened) = self.opened(piece, text, &token, session)?
                                else {
                                    candidate.token = Some(token);
                                    return Ok(Progress::Hold);
                                };
                                piece.skip(candidate.raw, out);
                                encoded(&opened.clear, out);
                            }
                            *state = FormState::Rest;
                            if piece.at >= piece.bytes.len() {
                                break;
                            }
                        }
                    }
                }
            }
        }
        Ok(Progress::Done)
    }
}

/// Appends `clear` as a value of a form ([URL] §5.2).
///
/// [URL]: https://url.spec.whatwg.org/#urlencoded-serializing
fn encoded(clear: &Zeroizing<Vec<u8>>, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(clear.len());
    for byte in clear.iter() {
        match byte {
            b'*' | b'-' | b'.' | b'_' => out.push(*byte),
            _ if byte.is_ascii_alphanumeric() => out.push(*byte),
            b' ' => out.push(b'+'),
            _ => {
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xF)]);
            }
        }
    }
}

/// Whether a form can hold a token: one that is written with a `%` shows no `ev:`.
pub(super) fn may_contain_token(body: &[u8]) -> bool {
    memchr(b'%', body).is_some() || super::may_contain_token(body)
}

#[cfg(test)]
mod tests;
