//! The grammar of a token, one byte at a time, so that a token may be cut anywhere.
//!
//! ```text
//! token = "ev:" [ "debug:" ] [ version ":" ] [ type ":" ] iv ":" key ":" data ":$"
//! ```
//!
//! [`Matcher`] says after each byte whether what it saw can still become a token. It stores nothing:
//! whoever feeds it keeps the bytes. Inside JSON a `/` may be written `\/`.

use std::ops::Range;

use crate::version::{ValueType, Version};

/// Characters of an IV: 12 bytes in base64.
const IV_CHARS: usize = 16;
/// Characters of an ephemeral key: 33 bytes in base64.
const KEY_CHARS: usize = 44;
/// Characters of a version.
const VERSION_CHARS: usize = 4;
/// Fewest characters of the data: a tag of 16 bytes in base64 without padding.
const MIN_DATA_CHARS: usize = 22;
/// How every token starts.
pub(crate) const START: &[u8; 3] = b"ev:";

/// A token in the bytes it was found in: where its parts are, relative to its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub(crate) is_debug: bool,
    pub(crate) version: Version,
    pub(crate) kind: ValueType,
    pub(crate) iv: Range<usize>,
    pub(crate) key: Range<usize>,
    pub(crate) data: Range<usize>,
    /// Length of the whole token, in bytes.
    pub(crate) length: usize,
}

impl Token {
    /// Parses bytes that are one token and nothing else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut matcher = Matcher::new(false);
        for (at, byte) in bytes.iter().enumerate() {
            match matcher.feed(*byte) {
                Step::More => {}
                Step::No => return None,
                Step::Complete(token) => {
                    return (at.checked_add(1) == Some(bytes.len())).then_some(token);
                }
            }
        }
        None
    }
}

/// A token that `bytes` start with, in its common form: with a version, without `debug` and without an
/// escaped `/`, whole, and at most `max` bytes long. `None` says nothing: [`Matcher`] decides.
pub(crate) fn common(bytes: &[u8], max: usize) -> Option<Token> {
    let rest = bytes.strip_prefix(START)?;
    let (version, rest) = rest.split_at_checked(VERSION_CHARS)?;
    let version = Version::parse(version)?;
    let mut rest = rest.strip_prefix(b":")?;
    let mut kind = ValueType::String;
    for (word, named) in [
        (&b"number:"[..], ValueType::Number),
        (&b"boolean:"[..], ValueType::Boolean),
    ] {
        if let Some(after) = rest.strip_prefix(word) {
            (rest, kind) = (after, named);
            break;
        }
    }
    let start = bytes.len().checked_sub(rest.len())?;
    let iv = start..start.checked_add(IV_CHARS)?;
    let key = iv.end.checked_add(1)?..iv.end.checked_add(1 + KEY_CHARS)?;
    let from = key.end.checked_add(1)?;
    let data = from..from.checked_add(memchr::memchr(b':', bytes.get(from..)?)?)?;
    let length = data.end.checked_add(2)?;
    let is_token = length <= max
        && data.len() >= MIN_DATA_CHARS
        && bytes.get(iv.end) == Some(&b':')
        && bytes.get(key.end) == Some(&b':')
        && bytes.get(data.end.saturating_add(1)) == Some(&b'$')
        && are_parts([
            bytes.get(iv.clone())?,
            bytes.get(key.clone())?,
            bytes.get(data.clone())?,
        ]);
    is_token.then_some(Token {
        is_debug: false,
        version,
        kind,
        iv,
        key,
        data,
        length,
    })
}

/// Whether parts have characters of base64 alone. Sixteen are looked at together, without a way out
/// before the end; the last sixteen of a part overlap those before. A shorter part has none.
fn are_parts(parts: [&[u8]; 3]) -> bool {
    let mut wrong = [0_u8; 16];
    for part in parts {
        let (chunks, Some(last)) = (part.as_chunks::<16>().0, part.last_chunk()) else {
            return false;
        };
        for chunk in chunks.iter().chain([last]) {
            for (wrong, byte) in wrong.iter_mut().zip(chunk) {
                *wrong |= u8::from(!is_base64(*byte));
            }
        }
    }
    wrong.iter().fold(0, |any, wrong| any | wrong) == 0
}

/// What a byte made of the candidate.
#[derive(Debug)]
pub(crate) enum Step {
    Complete(Token),
    More,
    No,
}

/// Which parts may still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Start,
    Debug,
    Version,
    Type,
    Iv,
    Key,
    Data,
}

/// Reads a candidate byte by byte.
#[derive(Debug)]
pub(crate) struct Matcher {
    is_json: bool,
    fed: usize,
    /// The last part that was read.
    stage: Stage,
    /// First bytes of the part being read: enough to tell a keyword.
    word: [u8; 8],
    /// Where the part being read starts, and how many characters it has.
    start: usize,
    chars: usize,
    after_backslash: bool,
    is_debug: bool,
    version: Option<Version>,
    kind: Option<ValueType>,
    iv: Range<usize>,
    key: Range<usize>,
    data: Range<usize>,
}

impl Matcher {
    pub(crate) fn new(is_json: bool) -> Self {
        Self {
            is_json,
            fed: 0,
            stage: Stage::Start,
            word: [0; 8],
            start: 0,
            chars: 0,
            after_backslash: false,
            is_debug: false,
            version: None,
            kind: None,
            iv: 0..0,
            key: 0..0,
            data: 0..0,
        }
    }

    /// How many bytes were fed.
    pub(crate) fn fed(&self) -> usize {
        self.fed
    }

    pub(crate) fn feed(&mut self, byte: u8) -> Step {
        let at = self.fed;
        self.fed = self.fed.saturating_add(1);
        if let Some(expected) = START.get(at) {
            self.start = self.fed;
            return if byte == *expected {
                Step::More
            } else {
                Step::No
            };
        }
        if self.after_backslash {
            self.after_backslash = false;
            return if byte == b'/' {
                self.character(byte)
            } else {
                Step::No
            };
        }
        match byte {
            _ if is_base64(byte) => self.character(byte),
            b'\\' if self.is_json => {
                self.after_backslash = true;
                Step::More
            }
            b':' => self.part(at),
            b'$' if self.stage == Stage::Data && self.chars == 0 => self.complete(),
            _ => Step::No,
        }
    }

    /// Takes the characters of base64 that `bytes` starts with, where they need no look of their own,
    /// and returns how many. It does what [`Matcher::feed`] does for each.
    pub(crate) fn feed_run(&mut self, bytes: &[u8]) -> usize {
        let room = match self.stage {
            Stage::Iv => KEY_CHARS.saturating_sub(self.chars),
            Stage::Key => usize::MAX,
            Stage::Start | Stage::Debug | Stage::Version | Stage::Type | Stage::Data => 0,
        };
        if self.after_backslash || room == 0 {
            return 0;
        }
        let is_plain = |byte: &&u8| IS_BASE64.get(usize::from(**byte)) == Some(&true);
        let count = bytes.iter().take(room).take_while(is_plain).count();
        self.chars = self.chars.saturating_add(count);
        self.fed = self.fed.saturating_add(count);
        count
    }

    fn character(&mut self, byte: u8) -> Step {
        if let Some(slot) = self.word.get_mut(self.chars) {
            *slot = byte;
        }
        self.chars = self.chars.saturating_add(1);
        let limit = match self.stage {
            Stage::Start | Stage::Debug | Stage::Version | Stage::Type => IV_CHARS,
            Stage::Iv => KEY_CHARS,
            Stage::Key => usize::MAX,
            Stage::Data => 0,
        };
        if self.chars > limit {
            Step::No
        } else {
            Step::More
        }
    }

    /// A colon at `at` ends a part.
    fn part(&mut self, at: usize) -> Step {
        let range = self.start..at;
        let chars = self.chars;
        let next = match self.stage {
            Stage::Iv if chars == KEY_CHARS => {
                self.key = range;
                Stage::Key
            }
            Stage::Key if chars >= MIN_DATA_CHARS => {
                self.data = range;
                Stage::Data
            }
            Stage::Iv | Stage::Key | Stage::Data => return Step::No,
            _ if chars == IV_CHARS => {
                self.iv = range;
                Stage::Iv
            }
            stage => match self.keyword(stage) {
                Some(next) => next,
                None => return Step::No,
            },
        };
        self.stage = next;
        self.start = self.fed;
        self.chars = 0;
        Step::More
    }

    fn keyword(&mut self, stage: Stage) -> Option<Stage> {
        let word = self.word.get(..self.chars)?;
        if stage == Stage::Start && word == b"debug" {
            self.is_debug = true;
            return Some(Stage::Debug);
        }
        if stage <= Stage::Debug
            && let Some(version) = Version::parse(word)
        {
            self.version = Some(version);
            return Some(Stage::Version);
        }
        let kind = ValueType::parse(word).filter(|_| stage <= Stage::Version)?;
        self.kind = Some(kind);
        Some(Stage::Type)
    }

    fn complete(&self) -> Step {
        Step::Complete(Token {
            is_debug: self.is_debug,
            version: self.version.unwrap_or(Version::Rfvc),
            kind: self.kind.unwrap_or(ValueType::String),
            iv: self.iv.clone(),
            key: self.key.clone(),
            data: self.data.clone(),
            length: self.fed,
        })
    }
}

/// Without branches, so that many bytes can be looked at together.
#[expect(clippy::needless_bitwise_bool, reason = "a lazy operator is a branch")]
const fn is_base64(byte: u8) -> bool {
    let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let is_digit = byte.wrapping_sub(b'0') < 10;
    is_letter | is_digit | (byte == b'+') | (byte == b'/') | (byte == b'=')
}

const IS_BASE64: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        #[expect(clippy::indexing_slicing, reason = "any byte is below 256")]
        {
            table[byte as usize] = is_base64(byte);
        }
        byte = byte.saturating_add(1);
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const IV: &str = "AAECAwQFBgcICQoL";
    const KEY: &str = "A9Zak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzz";
    const DATA: &str = "ye0W7ZzhtSI6hgogEw1itJ";

    #[test]
    fn every_optional_part_may_be_there_or_not() {
        for (head, version, kind, debug) in [
            ("", Version::Rfvc, ValueType::String, false),
            ("QkTC:", Version::QkTC, ValueType::String, false),
            ("QkTC:number:", Version::QkTC, ValueType::Number, false),
            (
                "debug:QkTC:boolean:",
                Version::QkTC,
                ValueType::Boolean,
                true,
            ),
            ("boolean:", Version::Rfvc, ValueType::Boolean, false),
            ("string:", Version::Rfvc, ValueType::String, false),
        ] {
            let text = format!("ev:{head}{IV}:{KEY}:{DATA}:$");
            let token = Token::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (token.version, token.kind, token.is_debug),
                (version, kind, debug),
                "{text}"
            );
            assert_eq!(text.get(token.iv), Some(IV));
            assert_eq!(text.get(token.key), Some(KEY));
            assert_eq!(text.get(token.data), Some(DATA));
        }
    }

    /// Whatever the fast path takes for a token, the grammar takes for the same one.
    #[test]
    fn the_common_form_is_what_the_grammar_says() {
        let matched = |text: &[u8]| {
            let mut matcher = Matcher::new(true);
            for byte in text {
                match matcher.feed(*byte) {
                    Step::More => {}
                    Step::No => return None,
                    Step::Complete(token) => return Some(token),
                }
            }
            None
        };
        let mut taken = 0;
        for head in [
            "QkTC:",
            "RFVC:number:",
            "S0lS:boolean:",
            "QkTC:string:",
            "",
            "debug:QkTC:",
        ] {
            for tail in ["", "\"", ":$", "$"] {
                let text = format!("ev:{head}{IV}:{KEY}:{DATA}:${tail}");
                assert_eq!(common(text.as_bytes(), text.len() - tail.len() - 1), None);
                for at in 0..text.len() {
                    for byte in *b"A:$/=+\\\"\xff" {
                        let mut changed = text.clone().into_bytes();
                        changed[at] = byte;
                        if let Some(token) = common(&changed, usize::MAX) {
                            assert_eq!(matched(&changed), Some(token), "{at} {byte}");
                            taken += 1;
                        }
                    }
                }
                for length in 0..text.len() - tail.len() {
                    assert_eq!(common(&text.as_bytes()[..length], usize::MAX), None);
                }
            }
        }
        assert!(taken > 3_000, "{taken}");
    }

    /// The table of the fast path against the grammar, for all bytes.
    #[test]
    fn a_run_takes_what_single_bytes_would() {
        let head = format!("ev:QkTC:{IV}:{KEY}:");
        let fed = || {
            let mut matcher = Matcher::new(true);
            for byte in head.bytes() {
                assert!(matches!(matcher.feed(byte), Step::More));
            }
            matcher
        };
        for byte in 0..=255 {
            let one_by_one = matches!(fed().feed(byte), Step::More) && byte != b'\\';
            assert_eq!(fed().feed_run(&[byte, b' ']) == 1, one_by_one, "{byte}");
        }
        // A key of 45 characters is refused, however they come.
        let mut matcher = Matcher::new(true);
        for byte in format!("ev:QkTC:{IV}:").bytes() {
            assert!(matches!(matcher.feed(byte), Step::More));
        }
        assert_eq!(matcher.feed_run(&[b'A'; 50]), KEY_CHARS);
        assert!(matches!(matcher.feed(b'A'), Step::No));
    }

    #[test]
    fn what_only_starts_like_a_token_is_none() {
        let whole = format!("ev:QkTC:{IV}:{KEY}:{DATA}:$");
        Token::parse(whole.as_bytes()).unwrap();
        for text in [
            "ev:123",
            "ev:",
            "EV:QkTC",
            &format!("ev:number:QkTC:{IV}:{KEY}:{DATA}:$"),
            &format!("ev:QkTC:debug:{IV}:{KEY}:{DATA}:$"),
            &format!("ev:XXXX:{IV}:{KEY}:{DATA}:$"),
            &format!("ev:QkTC:{IV}A:{KEY}:{DATA}:$"),
            &format!("ev:QkTC:{IV}:{KEY}:short:$"),
            &format!("ev:QkTC:{IV}:{KEY}:{DATA}$"),
            &format!("ev:QkTC:{IV}:{KEY}:{DATA}:x:$"),
            &format!("ev:QkTC:{IV}:{KEY}:{DATA} :$"),
            whole.strip_suffix('$').unwrap(),
            &format!("{whole}x"),
        ] {
            assert_eq!(Token::parse(text.as_bytes()), None, "{text}");
        }
    }
}
