//! Finding the end of a head, and its lines.

use memchr::memchr;

use crate::HeadLimits;
use crate::error::HeadError;

/// How far the search for a head's end has come, so that a head that arrives byte by byte is
/// searched once.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadSearch {
    /// Start of the first line that is not complete.
    line: usize,
    /// Lines that were complete.
    lines: usize,
}

impl HeadSearch {
    /// For a section that has header lines alone, and is empty up to now.
    pub(crate) fn of_section() -> Self {
        Self { line: 0, lines: 1 }
    }

    /// The length of the head, its empty line included, or `None` when more bytes are needed.
    ///
    /// `bytes` begins with the head. A line feed without its carriage return is an error at once.
    pub(crate) fn advance(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, HeadError> {
        loop {
            let rest = bytes.get(self.line..).unwrap_or_default();
            let Some(found) = memchr(b'\n', rest) else {
                break;
            };
            let before = found.checked_sub(1).and_then(|at| rest.get(at));
            if before != Some(&b'\r') {
                return Err(HeadError::BareLineBreak);
            }
            self.line = self.line.saturating_add(found).saturating_add(1);
            if self.line > limits.head {
                return Err(HeadError::HeadTooLong { limit: limits.head });
            }
            if found == 1 {
                return Ok(Some(self.line));
            }
            self.lines = self.lines.saturating_add(1);
            // The first line is no header.
            if self.lines > limits.headers.saturating_add(1) {
                return Err(HeadError::TooManyHeaders {
                    limit: limits.headers,
                });
            }
        }
        if bytes.len() > limits.head {
            return Err(HeadError::HeadTooLong { limit: limits.head });
        }
        Ok(None)
    }

    /// Whether the first line is complete.
    pub fn has_first_line(&self) -> bool {
        self.lines > 0
    }
}

/// The line at `at`, without its end, and where the next begins. Every line feed was seen to follow
/// a carriage return; a carriage return inside a line is left to whoever reads it.
pub(crate) fn line(head: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = head.get(at..)?;
    let end = memchr(b'\n', rest)?;
    let content = rest.get(..end.checked_sub(1)?)?;
    Some((content, at.saturating_add(end).saturating_add(1)))
}

/// RFC 9110 §5.6.2: the characters of a token.
pub(crate) fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let text = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut at = 0;
    #[expect(
        clippy::indexing_slicing,
        reason = "made by the compiler: out of range would not compile"
    )]
    while at < text.len() {
        table[text[at] as usize] = true;
        at += 1;
    }
    table
};
