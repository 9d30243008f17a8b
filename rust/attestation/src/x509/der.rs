//! DER (ITU-T X.690 §8, §10) as far as these certificates need it: one-byte tags, definite lengths in
//! their shortest form. Borrows from its input and never looks past it.

/// DER that cannot be read: a verb phrase, to stand after the name of a field.
pub(super) type Problem = &'static str;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const VERSION: u8 = 0xa0;
pub(super) const EXTENSIONS: u8 = 0xa3;

/// Reads one element after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Der<'a> {
    rest: &'a [u8],
}

/// One element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    /// What it holds.
    pub(super) contents: &'a [u8],
    /// The whole of it, tag and length included.
    pub(super) whole: &'a [u8],
}

impl<'a> Der<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// The tag of the next element, `None` at the end.
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whatever comes next.
    pub(super) fn any(&mut self) -> Result<Element<'a>, Problem> {
        let input = self.rest;
        let (&tag, after_tag) = input.split_first().ok_or(CUT_SHORT)?;
        if tag & 0x1f == 0x1f {
            return Err("has a tag of several bytes");
        }
        let (&first, after_first) = after_tag.split_first().ok_or(CUT_SHORT)?;
        let (length, after_length) = match first {
            0..=0x7f => (usize::from(first), after_first),
            0x81 => {
                let (&length, rest) = after_first.split_first().ok_or(CUT_SHORT)?;
                if length < 0x80 {
                    return Err(NOT_SHORTEST);
                }
                (usize::from(length), rest)
            }
            0x82 => {
                let (length, rest) = after_first.split_first_chunk::<2>().ok_or(CUT_SHORT)?;
                let length = u16::from_be_bytes(*length);
                if length < 0x100 {
                    return Err(NOT_SHORTEST);
                }
                (usize::from(length), rest)
            }
            _ => return Err("has a length that is indefinite or too large"),
        };
        let (contents, rest) = after_length.split_at_checked(length).ok_or(CUT_SHORT)?;
        let whole_length = input.len().checked_sub(rest.len()).ok_or(CUT_SHORT)?;
        let (whole, _) = input.split_at_checked(whole_length).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(Element {
            tag,
            contents,
            whole,
        })
    }

    /// The next element, which must have `tag`.
    pub(super) fn expect(&mut self, tag: u8) -> Result<Element<'a>, Problem> {
        if self.peek().is_some_and(|found| found != tag) {
            return Err("has a field of another type than expected");
        }
        self.any()
    }

    /// The contents of the next element, which must have `tag`.
    pub(super) fn inside(&mut self, tag: u8) -> Result<Self, Problem> {
        self.expect(tag).map(|element| Self::new(element.contents))
    }

    /// Ends reading; bytes must not be left.
    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.is_empty() {
            Ok(())
        } else {
            Err("has bytes after its end")
        }
    }
}

/// A BOOLEAN, which DER spells 0 or 255 (X.690 §11.1).
pub(super) fn boolean(contents: &[u8]) -> Result<bool, Problem> {
    match contents {
        [0] => Ok(false),
        [0xff] => Ok(true),
        _ => Err("has a boolean that is neither 0 nor 255"),
    }
}

/// A BIT STRING of whole bytes.
pub(super) fn whole_bytes(contents: &[u8]) -> Result<&[u8], Problem> {
    match contents.split_first() {
        Some((0, bytes)) => Ok(bytes),
        _ => Err("has a bit string that does not end with a byte"),
    }
}

/// A BIT STRING whose bits have names: what it leaves unused is zero, and it ends with a bit that is set
/// (X.690 §11.2.1, §11.2.2), so that a set of names has one spelling.
pub(super) fn named_bits(contents: &[u8]) -> Result<&[u8], Problem> {
    match contents.split_first() {
        Some((unused @ 0..=7, bits))
            if bits.last().map(|last| last.trailing_zeros()) == Some(u32::from(*unused)) =>
        {
            Ok(bits)
        }
        _ => Err("has a bit string that is not in its shortest form"),
    }
}

const CUT_SHORT: Problem = "is cut short";
const NOT_SHORTEST: Problem = "has a length that is not in its shortest form";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_one_spelling() {
        assert_eq!(
            Der::new(&[4, 1, 9]).any().map(|element| element.contents),
            Ok(&[9][..])
        );
        assert_eq!(Der::new(&[4, 0x81, 1, 9]).any().unwrap_err(), NOT_SHORTEST);
        assert_eq!(
            Der::new(&[4, 0x82, 0, 1, 9]).any().unwrap_err(),
            NOT_SHORTEST
        );
        Der::new(&[0x30, 0x80, 0, 0]).any().unwrap_err();
        Der::new(&[0x1f, 0x81, 0]).any().unwrap_err();
        let mut long = vec![4, 0x81, 0x80];
        long.resize(3 + 0x80, 7);
        assert_eq!(
            Der::new(&long).any().map(|element| element.contents.len()),
            Ok(0x80)
        );
        assert_eq!(Der::new(&long[..0x80]).any().unwrap_err(), CUT_SHORT);
    }

    #[test]
    fn an_element_knows_its_whole_and_what_follows() {
        let mut der = Der::new(&[2, 1, 5, 1, 1, 0xff]);
        assert_eq!(
            der.expect(INTEGER).map(|element| element.whole),
            Ok(&[2, 1, 5][..])
        );
        der.expect(INTEGER).unwrap_err();
        assert_eq!(
            der.expect(BOOLEAN)
                .and_then(|element| boolean(element.contents)),
            Ok(true)
        );
        assert_eq!(der.finish(), Ok(()));
        boolean(&[1]).unwrap_err();
        assert_eq!(Der::new(&[2, 1]).expect(INTEGER).unwrap_err(), CUT_SHORT);
    }
}
