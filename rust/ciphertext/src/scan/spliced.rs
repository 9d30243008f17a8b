//! A JSON document that lies in memory whole, and what stands in the places of its tokens.
//!
//! [`super::Scanner`] writes a body as it becomes, which is what a body on its way needs. Who has all of
//! a document at hand wants it once, in memory of its own kind: so here the clear texts alone are kept,
//! and wiped, and the rest is copied where it lies.

use std::fmt;

use zeroize::Zeroizing;

use super::json::JsonState;
use super::sink::Sink;
use super::{Piece, Place, Progress, ScanError, ScanLimits, Scanner};
use crate::open::{OpenError, OpenSession};
use crate::room::{grow, wipe};

/// Opens the tokens of a JSON document, by the rules of [`Scanner`] for [`Place::Json`].
///
/// # Errors
///
/// [`ScanError`] for a token that cannot be opened; with [`OpenError::Paused`] when the session was not
/// granted the keys.
pub fn open_json<'d>(
    document: &'d [u8],
    limits: ScanLimits,
    session: &mut OpenSession<'_>,
) -> Result<Spliced<'d>, ScanError> {
    let mut scanner = Scanner::new(Place::Json, limits);
    let mut piece = Piece::new(document, true);
    let mut spliced = Spliced {
        document,
        at: 0,
        out: 0,
        splices: Vec::new(),
        clear: Zeroizing::default(),
    };
    let progress = scanner.json(&mut JsonState::default(), &mut piece, &mut spliced, session)?;
    if matches!(progress, Progress::Hold) {
        return Err(scanner.error(&piece, OpenError::Paused));
    }
    Ok(spliced)
}

/// A document whose tokens were opened. The clear texts are wiped when it is dropped.
pub struct Spliced<'d> {
    document: &'d [u8],
    /// How much of the document was decided.
    at: usize,
    /// How much of it is left out.
    out: usize,
    splices: Vec<Splice>,
    clear: Zeroizing<Vec<u8>>,
}

/// A place of the document, and the end of what comes there among all that comes.
struct Splice {
    start: usize,
    end: usize,
    clear_end: usize,
}

impl Spliced<'_> {
    /// Length of the document as it becomes, bytes.
    pub fn len(&self) -> usize {
        let stays = self.document.len().saturating_sub(self.out);
        stays.saturating_add(self.clear.len())
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The document as it becomes, part by part.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = (0, 0);
        let changed = self.splices.iter().flat_map(move |splice| {
            let stays = self.document.get(from.0..splice.start);
            let comes = self.clear.get(from.1..splice.clear_end);
            from = (splice.end, splice.clear_end);
            [stays.unwrap_or_default(), comes.unwrap_or_default()]
        });
        let last = self.splices.last().map_or(0, |splice| splice.end);
        changed.chain([self.document.get(last..).unwrap_or_default()])
    }

    /// Writes the document as it becomes over `to`, as far as that goes.
    pub fn write(&self, to: &mut [u8]) {
        let mut to = to;
        for part in self.parts() {
            let Some((now, later)) = to.split_at_mut_checked(part.len()) else {
                return;
            };
            now.copy_from_slice(part);
            to = later;
        }
    }
}

impl Sink for Spliced<'_> {
    fn pass(&mut self, bytes: &[u8]) {
        self.at = self.at.saturating_add(bytes.len());
    }

    fn skip(&mut self, count: usize) {
        let start = self.at;
        self.at = start.saturating_add(count);
        self.out = self.out.saturating_add(count);
        self.splices.push(Splice {
            start,
            end: self.at,
            clear_end: self.clear.len(),
        });
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.clear.len().saturating_add(bytes.len());
        grow(&mut self.clear, end);
        self.clear.extend_from_slice(bytes);
        if let Some(splice) = self.splices.last_mut() {
            splice.clear_end = end;
        }
    }
}

impl Drop for Spliced<'_> {
    fn drop(&mut self) {
        wipe(&mut self.clear);
    }
}

impl fmt::Debug for Spliced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spliced")
            .field("splices", &self.splices.len())
            .finish_non_exhaustive()
    }
}
