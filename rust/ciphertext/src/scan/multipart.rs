//! Tokens in the parts of `multipart/form-data` ([RFC 7578]), and encrypted files among them.
//!
//! Each part is scanned as what it says it is, as a body of its own would be; a part that starts like
//! an encrypted file is held until it ends, at most `max_file` bytes, and opened whole. Delimiters and
//! the heads of parts pass as they are.
//!
//! A line is a delimiter here when the lenient readers of the field take it for one: a bare line
//! feed before it, white space behind it. So no reader sees a part where this one sees none. A clear
//! text that would begin a part of its own is refused.
//!
//! [RFC 7578]: https://www.rfc-editor.org/rfc/rfc7578

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};
use zeroize::Zeroizing;

use super::{OpenSession, Piece, Progress, ScanError, Scanner};
use crate::boundary::Boundary;
use crate::file::{self, EncryptedFile};
use crate::open::OpenError;
use crate::place::{Place, place_for};

/// Longest head of a part. What is longer passes unscanned.
const MAX_HEAD: usize = 16 * 1024;
/// White space behind a boundary that is still a delimiter.
const MAX_PADDING: usize = 64;

/// Where in the body the scanner is.
#[derive(Debug)]
pub(super) struct MultipartState {
    /// `\n--` and the boundary.
    delimiter: Finder<'static>,
    at: At,
    /// What comes next begins a line, so that a delimiter needs no line feed before it.
    is_at_line_start: bool,
}

#[derive(Debug)]
enum At {
    /// Before the first delimiter.
    Preamble,
    /// Behind a delimiter: the head of a part.
    Head,
    /// In what a part holds.
    Part(Part),
    /// Behind the last delimiter.
    Epilogue,
}

/// What a part holds.
#[derive(Debug)]
enum Part {
    /// Not known yet: it may be an encrypted file.
    Begun(Option<Place>),
    /// An encrypted file.
    File(HeldFile),
    /// Something that is scanned.
    Scanned(Scanned),
    /// Something that passes.
    Opaque,
}

/// An encrypted file that has not ended.
#[derive(Debug)]
struct HeldFile {
    bytes: Vec<u8>,
    /// Where in the whole body it begins.
    offset: u64,
}

/// A part that is scanned.
#[derive(Debug)]
struct Scanned {
    scanner: Box<Scanner>,
    /// Where in the whole body it begins.
    offset: u64,
    /// The last bytes that were written, a line feed before the first of them: as many as a delimiter
    /// may have.
    tail: Zeroizing<Vec<u8>>,
}

/// A delimiter in a piece, or how far there is none.
enum Found {
    /// From the line end before it to behind its own; whether it is the last one.
    At {
        start: usize,
        end: usize,
        is_last: bool,
    },
    /// None in the first bytes, as many as this; what comes after them may begin one.
    Not(usize),
}

impl MultipartState {
    pub(super) fn new(boundary: &Boundary) -> Self {
        let mut delimiter = b"\n--".to_vec();
        delimiter.extend_from_slice(boundary.as_bytes());
        Self {
            delimiter: Finder::new(&delimiter).into_owned(),
            at: At::Preamble,
            is_at_line_start: true,
        }
    }

    /// Bytes that are held for a file.
    pub(super) fn held(&self) -> usize {
        match &self.at {
            At::Part(Part::File(held)) => held.bytes.capacity(),
            At::Part(Part::Scanned(part)) => part.scanner.held(),
            At::Part(_) | At::Preamble | At::Head | At::Epilogue => 0,
        }
    }

    fn begin(&mut self, part: Part) {
        self.at = At::Part(part);
        self.is_at_line_start = true;
    }

    fn find(&self, bytes: &[u8], is_last: bool) -> Found {
        let needle = self.delimiter.needle();
        let line = needle.get(1..).unwrap_or_default();
        if self.is_at_line_start && bytes.starts_with(line) {
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
        } else if self.is_at_line_start && line.starts_with(bytes) && !is_last {
            return Found::Not(0);
        }
        let mut from = 0_usize;
        while let Some(found) = bytes
            .get(from..)
            .and_then(|rest| self.delimiter.find(rest))
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
        let needle = self.delimiter.needle();
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
        Some(b'\n') => Behind::Delimiter {
            length: padding.saturating_add(1),
            is_last: false,
        },
        _ if padding > MAX_PADDING => Behind::Other,
        Some(b'-') if padding == 0 && bytes.len() == 1 && !is_last => Behind::More,
        Some(_) => Behind::Other,
        None if is_last => Behind::Delimiter {
            length: padding,
            is_last: true,
        },
        None => Behind::More,
    }
}

/// The head of a part.
enum Head {
    /// It has not ended.
    More,
    /// Its length, and what the part holds; none when it passes as it is.
    Whole(usize, Option<Place>),
}

impl Head {
    fn read(bytes: &[u8]) -> Self {
        let mut from = 0_usize;
        let mut fields = PartFields::default();
        while let Some(end) = bytes
            .get(from..)
            .and_then(|rest| memchr(b'\n', rest))
            .map(|end| end.saturating_add(from))
        {
            let line = bytes.get(from..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            from = end.saturating_add(1);
            if line.is_empty() {
                return Self::Whole(from, fields.place());
            }
            fields.line(line);
        }
        Self::More
    }
}

/// What the head of a part says about what it holds.
#[derive(Default)]
struct PartFields<'h> {
    content_type: Option<&'h [u8]>,
    /// Written in a way that is not looked through, or said in two ways.
    is_opaque: bool,
}

impl<'h> PartFields<'h> {
    fn line(&mut self, line: &'h [u8]) {
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let name = name.trim_ascii_end();
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            // The line before goes on here (RFC 5322 section 2.2.3), and not every reader knows.
            self.is_opaque = true;
        } else if name.eq_ignore_ascii_case(b"content-type") {
            self.is_opaque |= self.content_type.replace(value).is_some();
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            let plain: [&[u8]; 3] = [b"7bit", b"8bit", b"binary"];
            self.is_opaque |= !plain.iter().any(|known| value.eq_ignore_ascii_case(known));
        }
    }

    fn place(&self) -> Option<Place> {
        let place = place_for(self.content_type).filter(|_| !self.is_opaque)?;
        (!matches!(place, Place::Multipart(_))).then_some(place)
    }
}

impl Scanner {
    /// Decides a piece of a multipart body.
    pub(super) fn multipart(
        &mut self,
        state: &mut MultipartState,
        piece: &mut Piece<'_>,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<Progress, ScanError> {
        loop {
            let rest = piece.rest();
            if matches!(state.at, At::Epilogue) {
                piece.copy(rest.len(), out);
                return Ok(Progress::Done);
            }
            let found = state.find(rest, piece.is_last);
            let content = match found {
                Found::At { start, .. } => start,
                Found::Not(length) => length,
            };
            let is_end = matches!(found, Found::At { .. }) || piece.is_last;
            if matches!(state.at, At::Head) {
                let whole = rest.get(..content).unwrap_or_default();
                match Head::read(whole) {
                    Head::Whole(length, place) if length <= MAX_HEAD => {
                        piece.copy(length, out);
                        state.begin(Part::Begun(place));
                    }
                    Head::More if !is_end && content <= MAX_HEAD => return Ok(Progress::Hold),
                    Head::More | Head::Whole(..) => state.begin(Part::Opaque),
                }
                continue;
            }
            self.content(state, piece, content, is_end, out, session)?;
            state.is_at_line_start &= content == 0;
            let Found::At {
                start,
                end,
                is_last,
            } = found
            else {
                let is_all = piece.at >= piece.bytes.len();
                return Ok(if is_all {
                    Progress::Done
                } else {
                    Progress::Hold
                });
            };
            piece.copy(end.saturating_sub(start), out);
            state.is_at_line_start = true;
            state.at = if is_last { At::Epilogue } else { At::Head };
        }
    }

    /// Takes `length` bytes of what lies between two delimiters, all that is left of it when
    /// `is_end`. It may leave some of them for later when not.
    fn content(
        &mut self,
        state: &mut MultipartState,
        piece: &mut Piece<'_>,
        length: usize,
        is_end: bool,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<(), ScanError> {
        let bytes = piece.rest().get(..length).unwrap_or_default();
        if let At::Part(Part::Begun(place)) = &state.at {
            let is_undecided = file::START.starts_with(bytes) && bytes.len() < file::START.len();
            if is_undecided && !is_end {
                return Ok(());
            }
            let place = *place;
            let part = if bytes.starts_with(file::START) {
                Part::File(HeldFile {
                    bytes: Vec::new(),
                    offset: self.here(piece),
                })
            } else {
                place.map_or(Part::Opaque, |place| Part::Scanned(self.part(place, piece)))
            };
            state.at = At::Part(part);
        }
        match &mut state.at {
            At::Part(Part::File(held)) => {
                let limit = self.limits.max_file;
                if held.bytes.len().saturating_add(bytes.len()) > limit {
                    return Err(ScanError {
                        offset: held.offset,
                        reason: OpenError::TooLong { limit },
                    });
                }
                held.extend(bytes);
                if is_end {
                    let is_opened = held.open(&state.delimiter, out, session)?;
                    self.fields_opened = self.fields_opened.saturating_add(u64::from(is_opened));
                }
                piece.at = piece.at.saturating_add(length);
            }
            At::Part(Part::Scanned(part)) => {
                let before = out.len();
                part.scanner.push(bytes, out, session)?;
                if is_end {
                    part.scanner.finish(out, session)?;
                    self.fields_opened = self
                        .fields_opened
                        .saturating_add(part.scanner.fields_opened);
                }
                let written = out.get(before..).unwrap_or_default();
                if part.begins_a_part(written, is_end, &state.delimiter) {
                    return Err(ScanError {
                        offset: part.offset,
                        reason: OpenError::CannotStand,
                    });
                }
                piece.at = piece.at.saturating_add(length);
            }
            At::Part(Part::Begun(_) | Part::Opaque) | At::Preamble | At::Head | At::Epilogue => {
                piece.copy(length, out);
            }
        }
        Ok(())
    }

    /// A part that begins where the piece stands.
    fn part(&self, place: Place, piece: &Piece<'_>) -> Scanned {
        let mut scanner = Box::new(Self::new(place, self.limits));
        let offset = self.here(piece);
        // Its errors say where in the whole body they are.
        scanner.offset = offset;
        Scanned {
            scanner,
            offset,
            tail: Zeroizing::new(b"\n".to_vec()),
        }
    }
}

impl HeldFile {
    /// Takes more of it; room grows by powers of two, so that what it takes can be told from its
    /// length.
    fn extend(&mut self, bytes: &[u8]) {
        let needed = self.bytes.len().saturating_add(bytes.len());
        if needed > self.bytes.capacity() {
            let room = needed.checked_next_power_of_two().unwrap_or(needed);
            self.bytes
                .reserve_exact(room.saturating_sub(self.bytes.len()));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Opens a file that is there whole; one that only starts like a file passes, and the answer is
    /// no.
    fn open(
        &self,
        delimiter: &Finder<'static>,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<bool, ScanError> {
        let failed = |reason| ScanError {
            offset: self.offset,
            reason,
        };
        let Some(file) = EncryptedFile::parse(&self.bytes).map_err(failed)? else {
            out.extend_from_slice(&self.bytes);
            return Ok(false);
        };
        let clear = session.open_file(&file).map_err(failed)?;
        // It begins a line.
        let first = delimiter.needle().len().saturating_add(MAX_PADDING);
        let mut start = Zeroizing::new(Vec::with_capacity(first.saturating_add(1)));
        start.push(b'\n');
        start.extend_from_slice(clear.get(..first.min(clear.len())).unwrap_or_default());
        if has_delimiter(&start, true, delimiter) || has_delimiter(&clear, true, delimiter) {
            return Err(failed(OpenError::CannotStand));
        }
        out.extend_from_slice(&clear);
        Ok(true)
    }
}

impl Scanned {
    /// Whether what was written has a delimiter in it, which then comes from a clear text: the body
    /// itself has none there. At the end of the part a delimiter follows, so half of one is one.
    fn begins_a_part(&mut self, written: &[u8], is_end: bool, delimiter: &Finder<'static>) -> bool {
        let longest = delimiter
            .needle()
            .len()
            .saturating_add(MAX_PADDING)
            .saturating_add(2);
        let seam = written
            .get(..longest.min(written.len()))
            .unwrap_or_default();
        self.tail.extend_from_slice(seam);
        let is_there = self.scanner.fields_opened > 0
            && (has_delimiter(&self.tail, is_end, delimiter)
                || has_delimiter(written, is_end, delimiter));
        self.tail
            .extend_from_slice(written.get(seam.len()..).unwrap_or_default());
        let surplus = self.tail.len().saturating_sub(longest);
        self.tail.drain(..surplus);
        is_there
    }
}

fn has_delimiter(bytes: &[u8], is_end: bool, delimiter: &Finder<'static>) -> bool {
    let length = delimiter.needle().len();
    delimiter.find_iter(bytes).any(|found| {
        let after = found.saturating_add(length);
        match behind(bytes.get(after..).unwrap_or_default(), false) {
            Behind::Delimiter { .. } => true,
            Behind::More => is_end,
            Behind::Other => false,
        }
    })
}

#[cfg(test)]
mod tests;
