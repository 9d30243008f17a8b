//! The boundary of a multipart body, as its `Content-Type` gives it.

use std::fmt;

/// Longest boundary, in bytes ([RFC 2046] §5.1.1).
///
/// [RFC 2046]: https://www.rfc-editor.org/rfc/rfc2046
const MAX_BYTES: usize = 70;

/// What separates the parts of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    bytes: [u8; MAX_BYTES],
    length: usize,
}

impl Boundary {
    /// The `boundary` parameter of a content type.
    ///
    /// `None`: it is not there, is there twice, has another length than 1 to 70 bytes, or has a byte
    /// that no boundary has: then nobody can say where a part ends, and two readers may disagree.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let mut rest = content_type;
        let mut found = None;
        while let Some(start) = memchr::memchr(b';', rest) {
            rest = rest.get(start.checked_add(1)?..)?.trim_ascii_start();
            let end = rest.iter().position(|byte| matches!(byte, b'=' | b';'));
            let name = rest.get(..end?)?.trim_ascii_end();
            if rest.get(end?) == Some(&b';') {
                continue;
            }
            let is_boundary = name.eq_ignore_ascii_case(b"boundary");
            rest = rest.get(end?.checked_add(1)?..)?.trim_ascii_start();
            let (value, after) = value(rest)?;
            rest = after;
            if is_boundary && found.replace(Self::new(&value)?).is_some() {
                return None;
            }
        }
        found
    }

    fn new(value: &[u8]) -> Option<Self> {
        let is_fine = !value.is_empty() && value.iter().all(|byte| is_boundary_byte(*byte));
        let mut bytes = [0; MAX_BYTES];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        (is_fine && !value.ends_with(b" ")).then_some(Self {
            bytes,
            length: value.len(),
        })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Debug for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.as_bytes());
        f.debug_tuple("Boundary").field(&text).finish()
    }
}

/// A token or quoted string at the start of `rest`, and what comes after it.
fn value(rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = rest.strip_prefix(b"\"") else {
        let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
        let (value, after) = rest.split_at_checked(end)?;
        return Some((value.trim_ascii_end().to_vec(), after));
    };
    let mut text = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((text, quoted.get(at.checked_add(1)?..)?)),
            b'\\' => text.push(*bytes.next()?.1),
            _ => text.push(*byte),
        }
    }
    None
}

/// `bcharsnospace` of [RFC 2046] §5.1.1, and space.
///
/// [RFC 2046]: https://www.rfc-editor.org/rfc/rfc2046
fn is_boundary_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<String> {
        let found = Boundary::of(text.as_bytes())?;
        Some(String::from_utf8(found.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn it_is_found_however_it_is_written() {
        for text in [
            "multipart/form-data; boundary=abc",
            "multipart/form-data;BOUNDARY=abc; charset=utf-8",
            "multipart/form-data ; a=b;boundary = abc ",
            "multipart/form-data; boundary=\"abc\"",
            "multipart/form-data; boundary=\"a\\bc\"; x=\"; boundary=y\"",
            "multipart/form-data; flag; boundary=abc",
        ] {
            assert_eq!(of(text).as_deref(), Some("abc"), "{text}");
        }
        assert_eq!(of("m/f; boundary=\"a b\"").as_deref(), Some("a b"));
    }

    #[test]
    fn one_that_readers_may_disagree_about_is_none() {
        assert!(of(&format!("m/f; boundary={}", "a".repeat(70))).is_some());
        for text in [
            "multipart/form-data",
            "multipart/form-data; boundary",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"abc",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=a; Boundary=a",
            "multipart/form-data; boundary=a@b",
            "multipart/form-data; boundary=\"ab \"",
            &format!("m/f; boundary={}", "a".repeat(71)),
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
