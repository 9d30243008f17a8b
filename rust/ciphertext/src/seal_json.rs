//! Encrypting a JSON document: every string, number and boolean becomes a token, `null` and keys
//! stay in clear, and everything else stays where it is, to the byte.
//!
//! A number is encrypted as it is written, so `1.10` and a 20-digit integer come back as they were.
//! One ephemeral key serves the document; every value has an IV of its own.

use memchr::memchr2;
use zeroize::Zeroizing;

use crate::keys::AppPublicKey;
use crate::random::Random;
use crate::seal::{SealError, SealOptions, Sealer};
use crate::version::ValueType;

/// Deepest nesting of a document.
pub const MAX_DEPTH: usize = 128;

/// Encrypts the values of a JSON document (RFC 8259).
///
/// # Errors
///
/// As [`crate::seal`], [`SealError::NotJson`] with the offset where the document stops being JSON, and
/// [`SealError::TooDeep`] where it is nested deeper than [`MAX_DEPTH`].
pub fn seal_json(
    document: &[u8],
    key: &AppPublicKey,
    options: &SealOptions,
    random: &mut dyn Random,
) -> Result<Vec<u8>, SealError> {
    seal_json_within(document, usize::MAX, key, options, random)
}

/// The same, when what comes out has a limit in bytes: a document of short values grows to many
/// times its length.
///
/// # Errors
///
/// As [`seal_json`], and [`SealError::TooLong`].
pub fn seal_json_within(
    document: &[u8],
    limit: usize,
    key: &AppPublicKey,
    options: &SealOptions,
    random: &mut dyn Random,
) -> Result<Vec<u8>, SealError> {
    let sealer = Sealer::new(key, options, random)?;
    let mut making = Making {
        out: Vec::with_capacity(document.len().saturating_mul(4).min(limit)),
        limit,
        sealer,
        random,
    };
    Walk::new(document, Some(&mut making)).document()?;
    Ok(making.out)
}

/// Checks that a document is JSON, by the rules of [`seal_json`], and makes nothing of it.
///
/// # Errors
///
/// [`SealError::NotJson`] and [`SealError::TooDeep`], with the offset.
pub fn check_json(document: &[u8]) -> Result<(), SealError> {
    Walk::new(document, None).document()
}

/// Line and column of an offset in a text, both from 1; columns are counted in bytes.
pub fn line_and_column(text: &[u8], offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let lines = memchr::memchr_iter(b'\n', before).count();
    let column = match memchr::memrchr(b'\n', before) {
        Some(feed) => before.len().saturating_sub(feed),
        None => before.len().saturating_add(1),
    };
    (lines.saturating_add(1), column)
}

struct Walk<'d, 'm> {
    input: &'d [u8],
    at: usize,
    /// Where to; without it the document is only checked.
    making: Option<&'m mut Making<'d>>,
}

struct Making<'d> {
    out: Vec<u8>,
    limit: usize,
    sealer: Sealer<'d>,
    random: &'d mut dyn Random,
}

impl Making<'_> {
    fn seal(&mut self, clear: &[u8], kind: ValueType) -> Result<(), SealError> {
        let token = self.sealer.seal(clear, kind, self.random)?;
        if self.out.len().saturating_add(token.len()) > self.limit {
            return Err(SealError::TooLong { limit: self.limit });
        }
        self.out.push(b'"');
        self.out.extend_from_slice(token.as_bytes());
        self.out.push(b'"');
        Ok(())
    }
}

impl<'d, 'm> Walk<'d, 'm> {
    fn new(input: &'d [u8], making: Option<&'m mut Making<'d>>) -> Self {
        Self {
            input,
            at: 0,
            making,
        }
    }

    fn document(&mut self) -> Result<(), SealError> {
        self.space();
        self.value(0)?;
        self.space();
        if self.at < self.input.len() {
            return Err(self.wrong());
        }
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<(), SealError> {
        match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => Err(SealError::TooDeep { offset: self.at }),
            Some(b'{') => self.container(depth, b'}', true),
            Some(b'[') => self.container(depth, b']', false),
            Some(b'"') => {
                let clear = self.string()?;
                self.seal(&clear, ValueType::String)
            }
            Some(b't') => self.literal(b"true", Some(ValueType::Boolean)),
            Some(b'f') => self.literal(b"false", Some(ValueType::Boolean)),
            Some(b'n') => self.literal(b"null", None),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.wrong()),
        }
    }

    fn container(&mut self, depth: usize, close: u8, is_object: bool) -> Result<(), SealError> {
        self.copy();
        self.space();
        if self.peek() == Some(close) {
            self.copy();
            return Ok(());
        }
        loop {
            if is_object {
                let start = self.at;
                self.string()?;
                self.put(self.input.get(start..self.at).unwrap_or_default());
                self.space();
                self.expect(b':')?;
                self.space();
            }
            self.value(depth.saturating_add(1))?;
            self.space();
            match self.peek() {
                Some(byte) if byte == close => {
                    self.copy();
                    return Ok(());
                }
                Some(b',') => self.copy(),
                _ => return Err(self.wrong()),
            }
            self.space();
        }
    }

    /// Reads a string, quotes included, and returns its clear text.
    fn string(&mut self) -> Result<Zeroizing<Vec<u8>>, SealError> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong());
        }
        self.skip();
        // An escape is never shorter than what it stands for, so this is room enough: a clear text
        // that grew would leave its beginning behind.
        let mut clear = Zeroizing::new(Vec::with_capacity(self.raw_length()));
        loop {
            let byte = self.peek().ok_or_else(|| self.wrong())?;
            if byte < 0x20 {
                return Err(self.wrong());
            }
            self.skip();
            match byte {
                b'"' => break,
                b'\\' => self.escape(&mut clear)?,
                _ => clear.push(byte),
            }
        }
        if std::str::from_utf8(&clear).is_err() {
            return Err(self.wrong());
        }
        Ok(clear)
    }

    /// Bytes up to the quote that ends the string, escapes included.
    fn raw_length(&self) -> usize {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let mut length = 0_usize;
        while let Some(tail) = rest.get(length..) {
            match memchr2(b'"', b'\\', tail) {
                Some(found) if tail.get(found) == Some(&b'"') => {
                    return length.saturating_add(found);
                }
                Some(found) => length = length.saturating_add(found).saturating_add(2),
                None => break,
            }
        }
        rest.len()
    }

    fn escape(&mut self, clear: &mut Vec<u8>) -> Result<(), SealError> {
        let byte = self.peek().ok_or_else(|| self.wrong())?;
        self.skip();
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let first = self.hex4()?;
                let char = if (0xD800..0xDC00).contains(&first) {
                    self.low_surrogate(first)?
                } else {
                    char::from_u32(first).ok_or_else(|| self.wrong())?
                };
                clear.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.wrong()),
        };
        clear.push(plain);
        Ok(())
    }

    fn low_surrogate(&mut self, high: u32) -> Result<char, SealError> {
        if self
            .input
            .get(self.at..)
            .is_none_or(|rest| !rest.starts_with(b"\\u"))
        {
            return Err(self.wrong());
        }
        self.at = self.at.saturating_add(2);
        let low = self.hex4()?;
        if !(0xDC00..0xE000).contains(&low) {
            return Err(self.wrong());
        }
        let code = 0x1_0000_u32
            .saturating_add((high & 0x3FF) << 10)
            .saturating_add(low & 0x3FF);
        char::from_u32(code).ok_or_else(|| self.wrong())
    }

    fn hex4(&mut self) -> Result<u32, SealError> {
        let mut value: u32 = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            value = (value << 4) | digit.ok_or_else(|| self.wrong())?;
            self.skip();
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<(), SealError> {
        let start = self.at;
        while matches!(
            self.peek(),
            Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
        ) {
            self.skip();
        }
        let text = self.input.get(start..self.at).unwrap_or_default();
        if !ValueType::Number.admits(text) {
            self.at = start;
            return Err(self.wrong());
        }
        self.seal(text, ValueType::Number)
    }

    fn literal(&mut self, word: &[u8], kind: Option<ValueType>) -> Result<(), SealError> {
        if self
            .input
            .get(self.at..)
            .is_none_or(|rest| !rest.starts_with(word))
        {
            return Err(self.wrong());
        }
        self.at = self.at.saturating_add(word.len());
        if let Some(kind) = kind {
            return self.seal(word, kind);
        }
        self.put(word);
        Ok(())
    }

    fn seal(&mut self, clear: &[u8], kind: ValueType) -> Result<(), SealError> {
        match &mut self.making {
            Some(making) => making.seal(clear, kind),
            None => Ok(()),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(making) = &mut self.making {
            making.out.extend_from_slice(bytes);
        }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.copy();
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), SealError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong());
        }
        self.copy();
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn skip(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn copy(&mut self) {
        if let Some(making) = &mut self.making {
            making.out.extend(self.input.get(self.at));
        }
        self.skip();
    }

    fn wrong(&self) -> SealError {
        SealError::NotJson { offset: self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{AppPrivateKey, Keyring};
    use crate::open::{OpenPolicy, OpenSession};
    use crate::place::Place;
    use crate::scan::{ScanLimits, Scanner};
    use crate::seal::tests::{Counting, OPTIONS};

    fn sealed(document: &str) -> Result<Vec<u8>, SealError> {
        let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        seal_json(
            document.as_bytes(),
            app.public(),
            &OPTIONS,
            &mut Counting(1),
        )
    }

    fn opened(document: &[u8]) -> Vec<u8> {
        let keyring = Keyring::new(vec![AppPrivateKey::from_bytes(&[0x11; 32]).unwrap()]).unwrap();
        let policy = OpenPolicy {
            dangerous_accept_debug: false,
            distinct_keys: 1,
        };
        let mut session = OpenSession::new(&keyring, policy);
        let mut scanner = Scanner::new(Place::Json, ScanLimits::default());
        let mut out = Vec::new();
        scanner.push(document, &mut out, &mut session).unwrap();
        scanner.finish(&mut out, &mut session).unwrap();
        out
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let document = r#" {"a" : "x\n", "n":[1.10, 1e400, 12345678901234567890, -0, true,
            false, null], "d":{"":"é","e":"\ud83d\ude00 \"q\" \\"}} "#;
        let made = sealed(document).unwrap();
        let text = String::from_utf8(made.clone()).unwrap();
        assert_eq!(text.matches("ev:QkTC:").count(), 9);
        assert!(text.contains("null") && text.contains(r#""a" :"#));
        let back = String::from_utf8(opened(&made)).unwrap();
        assert!(
            back.contains("[1.10, 1e400, 12345678901234567890, -0, true"),
            "{back}"
        );
        let back: serde_json::Value = serde_json::from_str(&back.replace("1e400", "0")).unwrap();
        assert_eq!(back["d"]["e"], "\u{1F600} \"q\" \\");
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_stops_being_json() {
        for (bad, offset) in [
            ("", 0),
            ("{", 1),
            ("[1,]", 3),
            ("{\"a\"}", 4),
            ("01", 0),
            ("tru", 0),
            ("\"\\x\"", 3),
            ("\"\\ud800\"", 7),
            ("\"a", 2),
            ("1 2", 2),
            ("{1:2}", 1),
            ("\"\t\"", 1),
        ] {
            assert_eq!(sealed(bad), Err(SealError::NotJson { offset }), "{bad}");
            let checked = check_json(bad.as_bytes());
            assert_eq!(checked, Err(SealError::NotJson { offset }), "{bad}");
        }
        let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
        let offset = MAX_DEPTH;
        assert_eq!(sealed(&deep), Err(SealError::TooDeep { offset }));
        assert_eq!(
            check_json(deep.as_bytes()),
            Err(SealError::TooDeep { offset })
        );
        let allowed = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        sealed(&allowed).unwrap();
        check_json(allowed.as_bytes()).unwrap();
    }

    #[test]
    fn an_offset_is_said_as_line_and_column() {
        let text = b"{\n  nope}\n";
        for (offset, place) in [
            (0, (1, 1)),
            (1, (1, 2)),
            (2, (2, 1)),
            (4, (2, 3)),
            (99, (3, 1)),
        ] {
            assert_eq!(line_and_column(text, offset), place, "{offset}");
        }
    }

    /// A million of `1,` are 2 MB, and their ciphertexts 130.
    #[test]
    fn what_comes_out_has_a_limit() {
        let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        let document = format!("[1{}]", ",1".repeat(99));
        let within = |limit| {
            seal_json_within(
                document.as_bytes(),
                limit,
                app.public(),
                &OPTIONS,
                &mut Counting(1),
            )
        };
        let whole = within(usize::MAX).unwrap();
        assert_eq!(within(whole.len()).unwrap(), whole);
        let limit = whole.len() - 200;
        assert_eq!(within(limit), Err(SealError::TooLong { limit }));
    }
}
