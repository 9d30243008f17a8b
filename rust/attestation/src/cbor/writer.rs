//! Writing CBOR, in the shortest form.

use super::{ARRAY, BREAK, BYTES, FALSE, MAP, NEGATIVE, NULL, TAG, TEXT, TRUE, UNSIGNED};

/// Writes one item after the other, in the shortest form.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// A writer of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that does not move what is written until it is longer than `bytes`: a secret that
    /// was moved would stay behind.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            out: Vec::with_capacity(bytes),
        }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// An unsigned integer.
    pub fn unsigned(&mut self, value: u64) -> &mut Self {
        self.head(UNSIGNED, value)
    }

    /// An integer of either sign.
    pub fn integer(&mut self, value: i64) -> &mut Self {
        match u64::try_from(value) {
            Ok(value) => self.head(UNSIGNED, value),
            Err(_) => self.head(NEGATIVE, (!value).unsigned_abs()),
        }
    }

    /// A byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(BYTES, length(value));
        self.out.extend_from_slice(value);
        self
    }

    /// A byte string, or null.
    pub fn bytes_or_null(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            Some(value) => self.bytes(value),
            None => self.null(),
        }
    }

    /// A text string.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(TEXT, length(value.as_bytes()));
        self.out.extend_from_slice(value.as_bytes());
        self
    }

    /// True or false.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { TRUE } else { FALSE });
        self
    }

    /// Null.
    pub fn null(&mut self) -> &mut Self {
        self.out.push(NULL);
        self
    }

    /// The start of an array of `count` items.
    pub fn array(&mut self, count: u64) -> &mut Self {
        self.head(ARRAY, count)
    }

    /// The start of a map of `count` pairs.
    pub fn map(&mut self, count: u64) -> &mut Self {
        self.head(MAP, count)
    }

    /// The start of an indefinite map, which [`Writer::end`] ends.
    pub fn indefinite_map(&mut self) -> &mut Self {
        self.out.push(MAP << 5 | 0x1f);
        self
    }

    /// The end of an indefinite map.
    pub fn end(&mut self) -> &mut Self {
        self.out.push(BREAK);
        self
    }

    /// A tag for the item that follows.
    pub fn tag(&mut self, number: u64) -> &mut Self {
        self.head(TAG, number)
    }

    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let major = major << 5;
        if let Ok(byte) = u8::try_from(value) {
            if byte <= 23 {
                self.out.push(major | byte);
            } else {
                self.out.extend_from_slice(&[major | 0x18, byte]);
            }
        } else if let Ok(short) = u16::try_from(value) {
            self.out.push(major | 0x19);
            self.out.extend_from_slice(&short.to_be_bytes());
        } else if let Ok(word) = u32::try_from(value) {
            self.out.push(major | 0x1a);
            self.out.extend_from_slice(&word.to_be_bytes());
        } else {
            self.out.push(major | 0x1b);
            self.out.extend_from_slice(&value.to_be_bytes());
        }
        self
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
