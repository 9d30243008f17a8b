//! Delimiters of a multipart body: where the lenient readers of the field see one.

use memchr::memchr_iter;
use memchr::memmem::Finder;

use crate::boundary::Boundary;

/// White space behind a boundary with which it still begins a part.
pub(super) const MAX_PADDING: usize = 64;

/// What delimiters of one body look like.
#[derive(Debug)]
pub(super) struct Delimiter {
    /// `\n--` and the boundary.
    finder: Finder<'static>,
}

/// A delimiter in a piece, or how far there is none.
pub(super) enum Found {
    /// From the line end before it to behind its own; whether it is the last one.
    At {
        start: usize,
        end: usize,
        is_last: bool,
    },
    /// None in the first bytes, as many as this; what comes after them may begin one.
    Not(usize),
}

impl Delimiter {
    pub(super) fn new(boundary: &Boundary) -> Self {
        let mut needle = b"\n--".to_vec();
        needle.extend_from_slice(boundary.as_bytes());
        Self {
            finder: Finder::new(&needle).into_owned(),
        }
    }

    /// Most bytes that one takes, the line feed before it and what is behind it included.
    pub(super) fn longest(&self) -> usize {
        let needle = self.finder.needle().len();
        needle.saturating_add(MAX_PADDING).saturating_add(2)
    }

    /// The first delimiter in `bytes`.
    ///
    /// `begins_line`: they begin a line, so that one may stand there without a line feed.
    /// `is_last`: nothing comes after them.
    pub(super) fn find(&self, bytes: &[u8], begins_line: bool, is_last: bool) -> Found {
        let needle = self.finder.needle();
        let line = needle.get(1..).unwrap_or_default();
        if begins_line && bytes.starts_with(line) {
            match behind(bytes.get(line.len()..).unwrap_or_default(), is_last) {
                Behind::Delimiter { length, is_last } => {
                    return Found::At {
                        start: 0,
                        end: line.len().saturating_add(length),
                        is_last,
                    };
                }
                Behind::More => return Found::Not(0),
                Behind::Other => {}
            }
        } else if begins_line && line.starts_with(bytes) && !is_last {
            return Found::Not(0);
        }
        let mut from = 0_usize;
        while let Some(found) = bytes
            .get(from..)
            .and_then(|rest| self.finder.find(rest))
            .map(|found| found.saturating_add(from))
        {
            let start = line_end(bytes, found);
            let after = found.saturating_add(needle.len());
            match behind(bytes.get(after..).unwrap_or_default(), is_last) {
                Behind::Delimiter { length, is_last } => {
                    return Found::At {
                        start,
                        end: after.saturating_add(length),
                        is_last,
                    };
                }
                Behind::More => return Found::Not(start),
                Behind::Other => from = after,
            }
        }
        Found::Not(if is_last {
            bytes.len()
        } else {
            bytes.len().saturating_sub(self.undecided(bytes))
        })
    }

    /// How many of the last bytes may be the start of a delimiter.
    fn undecided(&self, bytes: &[u8]) -> usize {
        let needle = self.finder.needle();
        let far = bytes.len().saturating_sub(needle.len());
        let near = bytes.get(far..).unwrap_or_default();
        let begun = memchr_iter(b'\n', near)
            .find(|at| needle.starts_with(near.get(*at..).unwrap_or_default()));
        let start = match begun {
            Some(at) => line_end(bytes, far.saturating_add(at)),
            None if bytes.last() == Some(&b'\r') => bytes.len().saturating_sub(1),
            None => bytes.len(),
        };
        bytes.len().saturating_sub(start)
    }

    /// Whether there is one in what was written. `is_end`: a delimiter follows it, so half of one is
    /// one.
    pub(super) fn is_in(&self, bytes: &[u8], is_end: bool) -> bool {
        let length = self.finder.needle().len();
        self.finder.find_iter(bytes).any(|found| {
            let after = found.saturating_add(length);
            match behind(bytes.get(after..).unwrap_or_default(), false) {
                Behind::Delimiter { .. } => true,
                Behind::More => is_end,
                Behind::Other => false,
            }
        })
    }
}

/// Where the line end begins that ends with the line feed at `at`.
fn line_end(bytes: &[u8], at: usize) -> usize {
    let before = at.checked_sub(1);
    match before.and_then(|before| bytes.get(before)) {
        Some(b'\r') => before.unwrap_or(at),
        _ => at,
    }
}

/// What stands behind a boundary.
enum Behind {
    Delimiter { length: usize, is_last: bool },
    More,
    Other,
}

fn behind(bytes: &[u8], is_last: bool) -> Behind {
    if bytes.starts_with(b"--") {
        return Behind::Delimiter {
            length: 2,
            is_last: true,
        };
    }
    let padding = bytes
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
        .count();
    match bytes.get(padding) {
        // Readers may disagree on it, so it is the last one here: nothing behind it is opened.
        _ if padding > MAX_PADDING => Behind::Delimiter {
            length: 0,
            is_last: true,
        },
        Some(b'\n') => Behind::Delimiter {
            length: padding.saturating_add(1),
            is_last: false,
        },
        Some(b'-') if padding == 0 && bytes.len() == 1 && !is_last => Behind::More,
        Some(_) => Behind::Other,
        None if is_last => Behind::Delimiter {
            length: padding,
            is_last: true,
        },
        None => Behind::More,
    }
}
