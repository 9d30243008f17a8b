//! The head of a part of a multipart body, and what it says about what the part holds.

use memchr::memchr;

use crate::place::{Place, place_for};

/// The head of a part.
pub(super) enum Head {
    /// It has not ended.
    More,
    /// Its length, and what the part holds; none when it passes as it is.
    Whole(usize, Option<Place>),
}

impl Head {
    pub(super) fn read(bytes: &[u8]) -> Self {
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
