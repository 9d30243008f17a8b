//! What is authenticated besides the ciphertext of a token or a file (ciphertext specification §1, §2).

use crate::token::Token;
use crate::version::AdditionalData;

/// What is authenticated besides the ciphertext. The app key stands last in it, so that the rest is
/// written once for all the app keys that are tried.
pub(crate) struct Additional {
    bytes: [u8; MOST_BYTES],
    before_app_key: usize,
    length: usize,
}

impl Additional {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Self {
            bytes: [0; MOST_BYTES],
            before_app_key: 0,
            length: 0,
        }
    }

    /// The app key alone.
    pub(crate) fn app_key() -> Self {
        Self {
            length: POINT_BYTES,
            ..Self::none()
        }
    }

    /// What the version of a token says.
    pub(crate) fn of_token(token: &Token, ephemeral: &[u8; POINT_BYTES]) -> Self {
        match token.version.additional_data() {
            AdditionalData::None => Self::none(),
            AdditionalData::AppKey => Self::app_key(),
            AdditionalData::V2 => {
                let head = if token.is_debug {
                    0x80
                } else {
                    (token.kind.number() << 4) | token.version.curve().number()
                };
                let mut bytes = [head; MOST_BYTES];
                if let Some(point) = bytes.get_mut(1..).and_then(<[u8]>::first_chunk_mut) {
                    *point = *ephemeral;
                }
                Self {
                    bytes,
                    before_app_key: 1 + POINT_BYTES,
                    length: MOST_BYTES,
                }
            }
        }
    }

    /// All of it, with this app key where there is one.
    pub(crate) fn with(&mut self, app: &[u8; POINT_BYTES]) -> &[u8] {
        let point = self.bytes.get_mut(self.before_app_key..);
        if let Some(point) = point.and_then(<[u8]>::first_chunk_mut) {
            *point = *app;
        }
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A compressed point.
const POINT_BYTES: usize = 33;
/// AADv2: a byte and two compressed points.
const MOST_BYTES: usize = 1 + 2 * POINT_BYTES;
