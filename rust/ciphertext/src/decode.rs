//! Base64 as the SDKs write it, and as JSON may have written it once more.
//!
//! Most parts of tokens are a few dozen characters, in which a library's general decoder spends most of
//! its time beside the characters. They go through [`plain`], which takes what is written as the SDKs
//! write it and leaves the rest, with every judgement, to the library (ADR 0026).

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurposeConfig;
use base64::engine::{DecodePaddingMode, Simd};

use crate::open::OpenError;

/// The IV of a token. It is put together in one piece: bytes that were written one by one are not to be
/// had together for a while.
///
/// # Errors
///
/// As [`array`].
pub(crate) fn iv(bytes: &[u8], range: &Range<usize>) -> Result<[u8; 12], OpenError> {
    if let Some((quads, [])) = bytes.get(range.clone()).map(<[u8]>::as_chunks::<4>)
        && let [a, b, c, d] = *quads
    {
        let [a, b, c, d] = [a, b, c, d].map(|quad| u128::from(bits(quad)));
        if (a | b | c | d) & u128::from(WRONG) == 0 {
            let all = (a << 104) | (b << 80) | (c << 56) | (d << 32);
            return all
                .to_be_bytes()
                .first_chunk()
                .copied()
                .ok_or(OpenError::CannotOpen);
        }
    }
    array(bytes, range)
}

/// A part of a token that has a length of its own.
///
/// # Errors
///
/// [`OpenError::CannotOpen`]: it is not base64, or of another length.
pub(crate) fn array<const N: usize>(
    bytes: &[u8],
    range: &Range<usize>,
) -> Result<[u8; N], OpenError> {
    let text = bytes.get(range.clone()).ok_or(OpenError::CannotOpen)?;
    let mut room = [0; 64];
    if plain(text, &mut room) == Some(N) {
        return room.first_chunk().copied().ok_or(OpenError::CannotOpen);
    }
    // A `\/` of JSON, padded, or of another length.
    let mut decoded = vec![0; text.len()];
    let length = decode(text, &mut decoded)?;
    decoded.truncate(length);
    decoded.try_into().map_err(|_| OpenError::CannotOpen)
}

/// Decodes base64 without or with padding into the front of `out`, which is at least as long as the
/// text, and says how many bytes it is; a `\/` of JSON is a `/`.
///
/// # Errors
///
/// [`OpenError::CannotOpen`].
pub(crate) fn decode(text: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
    if text.len() <= MOST_PLAIN_CHARS
        && let Some(length) = plain(text, out)
    {
        return Ok(length);
    }
    let engine = Simd::standard(CONFIG);
    let decoded = if memchr::memchr(b'\\', text).is_none() {
        engine.decode_slice(text, out)
    } else {
        let plain: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\\').collect();
        engine.decode_slice(plain, out)
    };
    decoded.map_err(|_| OpenError::CannotOpen)
}

/// Decodes characters of the standard alphabet alone into the front of `out`, and says how many bytes
/// they are. Behind them it may write two more. `None` says nothing: there is padding, another
/// character, a bit behind the last byte, or no room.
fn plain(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let (octets, rest) = text.as_chunks::<8>();
    let (mut at, mut wrong) = (0_usize, 0);
    // Wrong characters are looked for once, at the end: no way out before it.
    for [a, b, c, d, e, f, g, h] in octets {
        let (left, right) = (bits([*a, *b, *c, *d]), bits([*e, *f, *g, *h]));
        wrong |= left | right;
        let both = (u64::from(left) << 40) | (u64::from(right & !WRONG) << 16);
        *out.get_mut(at..)?.first_chunk_mut()? = both.to_be_bytes();
        at = at.saturating_add(6);
    }
    for quad in rest.chunks(4) {
        let (bits, behind, length) = match *quad {
            [a, b, c, d] => (bits([a, b, c, d]), 0, 3),
            [a, b, c] => (bits([a, b, c, ZERO]), 0xFF, 2),
            [a, b] => (bits([a, b, ZERO, ZERO]), 0xFFFF, 1),
            _ => return None,
        };
        if bits & (WRONG | behind) != 0 {
            return None;
        }
        let [_, bytes @ ..] = bits.to_be_bytes();
        *out.get_mut(at..)?.first_chunk_mut()? = bytes;
        at = at.saturating_add(length);
    }
    (wrong < WRONG).then_some(at)
}

/// The 24 bits that four characters are, and [`WRONG`] when one is none of the alphabet.
fn bits(quad: [u8; 4]) -> u32 {
    let values = quad.iter().zip(&VALUES);
    values.fold(0, |bits, (byte, values)| {
        bits | values.get(usize::from(*byte)).copied().unwrap_or(WRONG)
    })
}

/// Longest text for [`plain`], in characters: the library looks at 32 at a time in longer ones.
const MOST_PLAIN_CHARS: usize = 128;
/// The character of the value 0.
const ZERO: u8 = b'A';
/// A bit beyond the 24.
const WRONG: u32 = 1 << 24;

/// What the characters of the standard alphabet stand for (RFC 4648 §4), at each of the four places: a
/// table each, so that nothing is left to be moved. They are read where a ciphertext says, which
/// everybody may know.
const VALUES: [[u32; 256]; 4] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [[WRONG; 256]; 4];
    let mut value = 0_u32;
    while value < 64 {
        #[expect(clippy::indexing_slicing, reason = "the alphabet has 64 characters")]
        {
            let character = alphabet[value as usize] as usize;
            values[0][character] = value << 18;
            values[1][character] = value << 12;
            values[2][character] = value << 6;
            values[3][character] = value;
        }
        value = value.saturating_add(1);
    }
    values
};

/// Standard alphabet; padding may be there; bits behind the last byte are zero, as every encoder writes
/// them.
const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::GeneralPurpose;
    use proptest::prelude::*;

    const LIBRARY: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG);

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; text.len()];
        let length = decode(text, &mut out).ok()?;
        out.get(..length).map(<[u8]>::to_vec)
    }

    /// RFC 4648 §10, with and without padding.
    #[test]
    fn the_published_answers_are_read() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            let unpadded = text.trim_end_matches('=');
            for text in [text, unpadded] {
                assert_eq!(
                    decoded(text.as_bytes()).as_deref(),
                    Some(bytes.as_bytes()),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        for text in ["Z", "Zh", "Zm9", "Zm 9v", "Zm9v\\n", "Zm-_", "\u{e9}m9v"] {
            let is_right = LIBRARY.decode(text).is_ok();
            assert!(!is_right, "{text}");
            assert_eq!(decoded(text.as_bytes()), None, "{text}");
        }
        assert_eq!(decoded(br"Zm\/v"), decoded(b"Zm/v"));
    }

    #[test]
    fn a_part_has_the_length_of_its_own() {
        let text = b"AAECAwQFBgcICQoLAA";
        assert_eq!(
            array::<12>(text, &(0..16)),
            Ok([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
        );
        assert_eq!(iv(text, &(0..16)), array(text, &(0..16)));
        for range in [0..15, 0..17, 0..18, 0..99] {
            assert_eq!(array::<12>(text, &range), Err(OpenError::CannotOpen));
            assert_eq!(iv(text, &range), Err(OpenError::CannotOpen));
        }
    }

    proptest! {
        /// An IV is what sixteen characters of the library are, whatever they are.
        #[test]
        fn an_iv_is_what_the_library_says(bytes: [u8; 12], at in 0..16_usize, other: u8) {
            let mut text = LIBRARY.encode(bytes).into_bytes();
            prop_assert_eq!(iv(&text, &(0..16)), Ok(bytes));
            text[at] = other;
            let expected = LIBRARY.decode(&text).ok().filter(|bytes| bytes.len() == 12);
            prop_assert_eq!(iv(&text, &(0..16)).ok().map(Vec::from), expected);
        }

        /// The short way and the long one agree with the scalar engine of the library on any text.
        #[test]
        fn the_library_decides(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at: prop::sample::Index,
            other: u8,
            padded: bool,
        ) {
            let mut text = LIBRARY.encode(&bytes).into_bytes();
            if padded {
                text.resize(text.len().next_multiple_of(4), b'=');
            }
            prop_assert_eq!(decoded(&text), Some(bytes));
            if !text.is_empty() {
                let at = at.index(text.len());
                text[at] = other;
                let expected = LIBRARY.decode(&text).ok();
                if other != b'\\' {
                    prop_assert_eq!(decoded(&text), expected);
                }
            }
        }
    }
}
