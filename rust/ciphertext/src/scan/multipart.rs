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

use zeroize::Zeroizing;

use super::{OpenSession, Piece, Progress, ScanError, Scanner};
use crate::boundary::Boundary;
use crate::file::{self, EncryptedFile, Unfit};
use crate::open::OpenError;
use crate::place::Place;

/// Longest head of a part. What is longer passes unscanned.
const MAX_HEAD: usize = 16 * 1024;

mod delimiter;
mod head;

use delimiter::{Delimiter, Found};
use head::Head;

/// Where in the body the scanner is.
#[derive(Debug)]
pub(super) struct MultipartState {
    delimiter: Delimiter,
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

impl MultipartState {
    pub(super) fn new(boundary: &Boundary) -> Self {
        Self {
            delimiter: Delimiter::new(boundary),
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
            let found = state
                .delimiter
                .find(rest, state.is_at_line_start, piece.is_last);
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
            if session.is_paused() {
                self.is_paused = true;
                return Ok(Progress::Hold);
            }
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
                    // Paused: what is held stays, and the end is found again.
                }
                piece.skip(length, out);
            }
            At::Part(Part::Scanned(part)) => {
                let before = out.len();
                part.scanner.push(bytes, out, session)?;
                if is_end && !session.is_paused() {
                    part.scanner.finish(out, session)?;
                }
                // A part that is paused ends when it has gone on.
                let is_end = is_end && !session.is_paused();
                if is_end {
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
                piece.skip(length, out);
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
        delimiter: &Delimiter,
        out: &mut Vec<u8>,
        session: &mut OpenSession<'_>,
    ) -> Result<bool, ScanError> {
        let failed = |reason| ScanError {
            offset: self.offset,
            reason,
        };
        let file = match EncryptedFile::parse(&self.bytes) {
            Ok(file) => file,
            Err(Unfit::NeverOpened) => return Err(failed(Unfit::NeverOpened.as_error())),
            Err(Unfit::Damaged | Unfit::NotAFile) => {
                out.extend_from_slice(&self.bytes);
                return Ok(false);
            }
        };
        let clear = match session.open_file(&file) {
            Ok(clear) => clear,
            Err(OpenError::Paused) => return Ok(false),
            Err(reason) => return Err(failed(reason)),
        };
        // It begins a line.
        let first = delimiter.longest();
        let mut start = Zeroizing::new(Vec::with_capacity(first.saturating_add(1)));
        start.push(b'\n');
        start.extend_from_slice(clear.get(..first.min(clear.len())).unwrap_or_default());
        if delimiter.is_in(&start, true) || delimiter.is_in(&clear, true) {
            return Err(failed(OpenError::CannotStand));
        }
        out.extend_from_slice(&clear);
        Ok(true)
    }
}

impl Scanned {
    /// Whether what was written has a delimiter in it, which then comes from a clear text: the body
    /// itself has none there. At the end of the part a delimiter follows, so half of one is one.
    fn begins_a_part(&mut self, written: &[u8], is_end: bool, delimiter: &Delimiter) -> bool {
        let longest = delimiter.longest();
        let seam = written
            .get(..longest.min(written.len()))
            .unwrap_or_default();
        self.tail.extend_from_slice(seam);
        let is_there = self.scanner.fields_opened > 0
            && (delimiter.is_in(&self.tail, is_end && seam.len() == written.len())
                || delimiter.is_in(written, is_end));
        self.tail
            .extend_from_slice(written.get(seam.len()..).unwrap_or_default());
        let surplus = self.tail.len().saturating_sub(longest);
        self.tail.drain(..surplus);
        is_there
    }
}

#[cfg(test)]
mod tests;
