//! CBOR (RFC 8949) as attestation documents and the NSM protocol use it: strict, bounded, without
//! copies.
//!
//! [`Reader`] accepts definite and indefinite maps and arrays, and definite strings only. It refuses
//! lengths and integers that are not in their shortest form (RFC 8949 §4.2.1): nothing genuine has
//! them, and each would be a second spelling of the same value. There is no generic value tree: the
//! caller asks for what must come next, so the depth of its own calls bounds the depth of the input.
//! Duplicate keys are the caller's to refuse; it knows its keys. [`Writer`] writes the shortest form.

mod writer;

use thiserror::Error;

pub use self::writer::Writer;

/// Why a piece of CBOR was refused: a verb phrase, to stand after the name of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct CborError(pub &'static str);

/// Reads one item after the other. A question that is refused moves nothing, so another may be asked;
/// [`Reader::has_next`] and [`Reader::skip`] alone may stop in the middle.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// How many items of an array or pairs of a map are still to come.
#[derive(Debug)]
pub enum Remaining {
    /// So many.
    Definite(usize),
    /// Until a break; at most so many more.
    Indefinite(usize),
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const BREAK: u8 = 0xff;

const CUT_SHORT: CborError = CborError("is cut short");

impl<'a> Reader<'a> {
    /// A reader at the start of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// Ends reading.
    ///
    /// # Errors
    ///
    /// Bytes are left.
    pub fn finish(self) -> Result<(), CborError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(CborError("has bytes after its end"))
        }
    }

    /// The number of a tag, when one comes next.
    ///
    /// # Errors
    ///
    /// The tag is cut short or not in its shortest form.
    pub fn tag(&mut self) -> Result<Option<u64>, CborError> {
        if self.rest.first().is_some_and(|byte| byte >> 5 == TAG) {
            Ok(Some(self.head(TAG, "is not a tag")?))
        } else {
            Ok(None)
        }
    }

    /// An unsigned integer.
    ///
    /// # Errors
    ///
    /// Something else comes next.
    pub fn unsigned(&mut self) -> Result<u64, CborError> {
        self.head(UNSIGNED, "is not an unsigned integer")
    }

    /// An integer of either sign.
    ///
    /// # Errors
    ///
    /// Something else comes next, or a number beyond 63 bits.
    pub fn integer(&mut self) -> Result<i64, CborError> {
        const TOO_LARGE: CborError = CborError("is an integer out of range");
        self.or_stay(|reader| {
            if reader
                .rest
                .first()
                .is_some_and(|byte| byte >> 5 == NEGATIVE)
            {
                let value = reader.head(NEGATIVE, "is not an integer")?;
                let value = i64::try_from(value).map_err(|_| TOO_LARGE)?;
                // −1 − n, RFC 8949 §3.1; it is the bitwise complement.
                return Ok(!value);
            }
            let value = reader.head(UNSIGNED, "is not an integer")?;
            i64::try_from(value).map_err(|_| TOO_LARGE)
        })
    }

    /// A byte string of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// Something else comes next, or a longer one.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], CborError> {
        self.string(BYTES, limit, "is not a definite byte string")
    }

    /// A byte string of at most `limit` bytes, or null.
    ///
    /// # Errors
    ///
    /// Something else comes next, or a longer one.
    pub fn bytes_or_null(&mut self, limit: usize) -> Result<Option<&'a [u8]>, CborError> {
        if let Some((&NULL, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(None);
        }
        self.string(BYTES, limit, "is neither a definite byte string nor null")
            .map(Some)
    }

    /// A text string of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// Something else comes next, a longer one, or one that is not UTF-8.
    pub fn text(&mut self, limit: usize) -> Result<&'a str, CborError> {
        self.or_stay(|reader| {
            let bytes = reader.string(TEXT, limit, "is not a definite text string")?;
            std::str::from_utf8(bytes).map_err(|_| CborError("is not UTF-8"))
        })
    }

    /// True or false.
    ///
    /// # Errors
    ///
    /// Something else comes next.
    pub fn boolean(&mut self) -> Result<bool, CborError> {
        match self.rest.split_first() {
            Some((&(FALSE | TRUE), rest)) => {
                let is_true = self.rest.first() == Some(&TRUE);
                self.rest = rest;
                Ok(is_true)
            }
            Some(_) => Err(CborError("is not a boolean")),
            None => Err(CUT_SHORT),
        }
    }

    /// The start of an array of at most `limit` items.
    ///
    /// # Errors
    ///
    /// Something else comes next, or a longer one.
    pub fn array(&mut self, limit: usize) -> Result<Remaining, CborError> {
        self.container(ARRAY, limit, "is not an array")
    }

    /// The start of a map of at most `limit` pairs.
    ///
    /// # Errors
    ///
    /// Something else comes next, or a longer one.
    pub fn map(&mut self, limit: usize) -> Result<Remaining, CborError> {
        self.container(MAP, limit, "is not a map")
    }

    /// True when another item or pair of the array or map follows; false at its end, which is then
    /// behind the reader.
    ///
    /// # Errors
    ///
    /// An indefinite container has more than its limit, or the input ends inside it.
    pub fn has_next(&mut self, remaining: &mut Remaining) -> Result<bool, CborError> {
        match remaining {
            Remaining::Definite(count) => match count.checked_sub(1) {
                Some(fewer) => {
                    *count = fewer;
                    Ok(true)
                }
                None => Ok(false),
            },
            Remaining::Indefinite(limit) => match self.rest.split_first() {
                None => Err(CUT_SHORT),
                Some((&BREAK, rest)) => {
                    self.rest = rest;
                    Ok(false)
                }
                Some(_) => {
                    *limit = limit.checked_sub(1).ok_or(TOO_MANY)?;
                    Ok(true)
                }
            },
        }
    }

    /// True when a text string comes next: how an externally tagged enum spells a bare variant.
    pub fn is_text(&self) -> bool {
        self.rest.first().is_some_and(|byte| byte >> 5 == TEXT)
    }

    /// Passes over one item of any kind, nested at most `depth` deep.
    ///
    /// # Errors
    ///
    /// The item is deeper, cut short, or not well-formed.
    pub fn skip(&mut self, depth: usize) -> Result<(), CborError> {
        let Some(first) = self.rest.first() else {
            return Err(CUT_SHORT);
        };
        let major = first >> 5;
        let deeper = depth.checked_sub(1);
        match major {
            UNSIGNED | NEGATIVE => self.head(major, "").map(drop),
            BYTES | TEXT => {
                let length = self.head(major, "has an indefinite string")?;
                self.take(length, usize::MAX).map(drop)
            }
            ARRAY | MAP => {
                let deeper = deeper.ok_or(TOO_DEEP)?;
                let mut remaining = self.container(major, usize::MAX, "")?;
                while self.has_next(&mut remaining)? {
                    self.skip(deeper)?;
                    if major == MAP {
                        self.skip(deeper)?;
                    }
                }
                Ok(())
            }
            TAG => {
                self.head(TAG, "")?;
                self.skip(deeper.ok_or(TOO_DEEP)?)
            }
            _ => match self.rest.split_first() {
                Some((&(FALSE | TRUE | NULL), rest)) => {
                    self.rest = rest;
                    Ok(())
                }
                _ => Err(CborError("has an unexpected simple value")),
            },
        }
    }

    fn container(
        &mut self,
        major: u8,
        limit: usize,
        otherwise: &'static str,
    ) -> Result<Remaining, CborError> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte == major << 5 | 0x1f => {
                self.rest = rest;
                Ok(Remaining::Indefinite(limit))
            }
            _ => self.or_stay(|reader| {
                let count = reader.head(major, otherwise)?;
                match usize::try_from(count) {
                    Ok(count) if count <= limit => Ok(Remaining::Definite(count)),
                    _ => Err(TOO_MANY),
                }
            }),
        }
    }

    fn string(
        &mut self,
        major: u8,
        limit: usize,
        otherwise: &'static str,
    ) -> Result<&'a [u8], CborError> {
        self.or_stay(|reader| {
            let length = reader.head(major, otherwise)?;
            reader.take(length, limit)
        })
    }

    /// What `read` reads; where it fails the reader stays.
    fn or_stay<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CborError>,
    ) -> Result<T, CborError> {
        let mut attempt = self.clone();
        let value = read(&mut attempt)?;
        *self = attempt;
        Ok(value)
    }

    /// The argument of an item of type `major`.
    fn head(&mut self, major: u8, otherwise: &'static str) -> Result<u64, CborError> {
        let (&first, rest) = self.rest.split_first().ok_or(CUT_SHORT)?;
        if first >> 5 != major {
            return Err(CborError(otherwise));
        }
        let (value, smallest, rest) = match first & 31 {
            short @ 0..=23 => (u64::from(short), 0, rest),
            24 => {
                let (bytes, rest) = rest.split_first_chunk::<1>().ok_or(CUT_SHORT)?;
                (u64::from(u8::from_be_bytes(*bytes)), 24, rest)
            }
            25 => {
                let (bytes, rest) = rest.split_first_chunk::<2>().ok_or(CUT_SHORT)?;
                (u64::from(u16::from_be_bytes(*bytes)), 1 << 8, rest)
            }
            26 => {
                let (bytes, rest) = rest.split_first_chunk::<4>().ok_or(CUT_SHORT)?;
                (u64::from(u32::from_be_bytes(*bytes)), 1 << 16, rest)
            }
            27 => {
                let (bytes, rest) = rest.split_first_chunk::<8>().ok_or(CUT_SHORT)?;
                (u64::from_be_bytes(*bytes), 1 << 32, rest)
            }
            _ if otherwise.is_empty() => return Err(CborError("is not well-formed CBOR")),
            _ => return Err(CborError(otherwise)),
        };
        if value < smallest {
            return Err(CborError(
                "has a length or number that is not in its shortest form",
            ));
        }
        self.rest = rest;
        Ok(value)
    }

    fn take(&mut self, length: u64, limit: usize) -> Result<&'a [u8], CborError> {
        let length = usize::try_from(length).map_err(|_| TOO_LONG)?;
        if length > limit {
            return Err(TOO_LONG);
        }
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }
}

const TOO_MANY: CborError = CborError("has more entries than allowed");
const TOO_DEEP: CborError = CborError("is nested too deeply");
const TOO_LONG: CborError = CborError("is longer than allowed");

const _: () = assert!(
    SIMPLE << 5 | 0x14 == FALSE,
    "simple values are major type 7"
);

#[cfg(test)]
mod tests;
