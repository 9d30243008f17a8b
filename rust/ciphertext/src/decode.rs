//! Base64 as the SDKs write it, and as JSON may have written it once more.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::open::OpenError;

/// A part of a token that has a length of its own: IV and ephemeral key.
///
/// # Errors
///
/// [`OpenError::CannotOpen`]: it is not base64, or of another length.
pub(crate) fn array<const N: usize>(
    bytes: &[u8],
    range: &std::ops::Range<usize>,
) -> Result<[u8; N], OpenError> {
    let text = bytes.get(range.clone()).ok_or(OpenError::CannotOpen)?;
    let mut out = [0; N];
    if let Ok(length) = BASE64.decode_slice(text, &mut out) {
        return (length == N).then_some(out).ok_or(OpenError::CannotOpen);
    }
    // A `\/` of JSON, or longer than what it is.
    let mut decoded = Vec::with_capacity(text.len());
    decode(text, &mut decoded)?;
    decoded.try_into().map_err(|_| OpenError::CannotOpen)
}

/// Decodes base64 without or with padding behind what `out` holds, which has room; a `\/` of JSON is
/// a `/`.
///
/// # Errors
///
/// [`OpenError::CannotOpen`].
pub(crate) fn decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
    let decoded = if memchr::memchr(b'\\', text).is_none() {
        BASE64.decode_vec(text, out)
    } else {
        let plain: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\\').collect();
        BASE64.decode_vec(plain, out)
    };
    decoded.map_err(|_| OpenError::CannotOpen)
}

/// Standard alphabet; padding may be there; bits behind the last byte are not looked at, as the
/// SDKs' decoders do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
