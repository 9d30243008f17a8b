//! Metadata in front of a value: `u16` little-endian length, MessagePack map (`dr`, `eo`, `et`).
//!
//! The map is written in one form and read by its length only: nothing in the enclave decides by it.

/// Origin of what the enclave encrypts.
pub(crate) const ORIGIN_ENCLAVE: u8 = 9;

/// Longest role (specification: `^[a-z0-9-]{1,20}$`).
const MAX_ROLE_BYTES: usize = 20;

/// Writes length and map.
pub(crate) fn write(out: &mut Vec<u8>, role: Option<&str>, origin: u8, unix_seconds: u32) {
    let mut map = Vec::with_capacity(40);
    map.push(if role.is_some() { 0x83 } else { 0x82 });
    if let Some(role) = role {
        text(&mut map, "dr");
        text(&mut map, role);
    }
    text(&mut map, "eo");
    map.push(origin & 0x7F);
    text(&mut map, "et");
    map.push(0xCE);
    map.extend_from_slice(&unix_seconds.to_be_bytes());
    out.extend_from_slice(&u16::try_from(map.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&map);
}

/// Whether a role is one.
pub(crate) fn is_role(role: &str) -> bool {
    (1..=MAX_ROLE_BYTES).contains(&role.len())
        && role
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// What follows the metadata; `None` when the length does not fit.
pub(crate) fn skip(clear: &[u8]) -> Option<&[u8]> {
    let (length, rest) = clear.split_first_chunk::<2>()?;
    let (map, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    // A map of at most 15 pairs (0x80 to 0x8f) is the only form that any SDK writes.
    map.first()
        .is_some_and(|first| first & 0xF0 == 0x80)
        .then_some(value)
}

/// A text of at most 31 bytes.
fn text(map: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap_or(31).min(31);
    map.push(0xA0 | length);
    map.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_maps_are_written() {
        let mut out = Vec::new();
        write(&mut out, Some("allow-all"), 5, 1_691_665_064);
        assert_eq!(
            out.get(2..),
            Some(&b"\x83\xa2dr\xa9allow-all\xa2eo\x05\xa2et\xced\xd4\xc2\xa8"[..])
        );
        out.clear();
        write(&mut out, None, 5, 1_691_665_064);
        out.extend(b"value");
        assert_eq!(skip(&out), Some(&b"value"[..]));
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(skip(&[9, 0, 0x80]), None);
        assert_eq!(skip(&[1]), None);
        assert_eq!(skip(&[1, 0, 0x80]), Some(&b""[..]));
    }

    #[test]
    fn a_role_is_short_and_plain() {
        assert!(is_role("allow-all"));
        assert!(!is_role("") && !is_role("Allow") && !is_role("a-role-of-21-letters--"));
    }
}
