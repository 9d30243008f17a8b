//! What is authenticated besides the ciphertext of a token or a file (ciphertext specification §1, §2).

use crate::token::Token;
use crate::version::AdditionalData;

/// What is authenticated besides the ciphertext.
pub(crate) struct Additional {
    bytes: [u8; MOST_ADDITIONAL_BYTES],
    length: usize,
}

impl Additional {
    /// The parts, one after the other; together at most [`MOST_ADDITIONAL_BYTES`].
    pub(crate) fn from_parts(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; MOST_ADDITIONAL_BYTES];
        let mut length = 0_usize;
        for part in parts {
            let end = length.saturating_add(part.len());
            if let Some(to) = bytes.get_mut(length..end) {
                to.copy_from_slice(part);
                length = end;
            }
        }
        Self { bytes, length }
    }
}

impl AsRef<[u8]> for Additional {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// AADv2: a byte and two compressed points.
const MOST_ADDITIONAL_BYTES: usize = 67;

/// What the version authenticates besides the ciphertext.
pub(crate) fn additional_data(token: &Token, ephemeral: &[u8; 33], app: &[u8; 33]) -> Additional {
    match token.version.additional_data() {
        AdditionalData::None => Additional::from_parts(&[]),
        AdditionalData::AppKey => Additional::from_parts(&[app]),
        AdditionalData::V2 => {
            let head = if token.is_debug {
                0x80
            } else {
                (token.kind.number() << 4) | token.version.curve().number()
            };
            Additional::from_parts(&[&[head], ephemeral, app])
        }
    }
}
