//! Text of a peer inside a JSON string: bounded, UTF-8 by replacement, nothing in it that a terminal
//! would obey (T-20).

/// Longest value, path or name that is written, in bytes.
pub(super) const MAX_BYTES: usize = 1024;

/// Appends `bytes`, at most [`MAX_BYTES`] of them, as a JSON string with its quotes.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    write_inside(bytes, out);
    out.push(b'"');
}

/// As [`write`], without quotes.
pub(super) fn write_inside(bytes: &[u8], out: &mut Vec<u8>) {
    let bytes = bytes.get(..bytes.len().min(MAX_BYTES)).unwrap_or(bytes);
    // Without an early end the compiler looks at many bytes at a time.
    if bytes.iter().fold(true, |all, byte| all & is_plain(*byte)) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            escape(character, out);
        }
        if !chunk.invalid().is_empty() {
            escape(char::REPLACEMENT_CHARACTER, out);
        }
    }
}

/// As [`write_inside`], in lower case; for header names, which are tokens.
pub(super) fn write_name(name: &[u8], out: &mut Vec<u8>) {
    let name = name.get(..name.len().min(MAX_BYTES)).unwrap_or(name);
    out.extend(name.iter().map(u8::to_ascii_lowercase));
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// C0 and C1 controls and DEL are escaped; so are the two characters that JSON reserves.
fn escape(character: char, out: &mut Vec<u8>) {
    match character {
        '"' | '\\' => {
            out.push(b'\\');
            out.push(if character == '"' { b'"' } else { b'\\' });
        }
        '\0'..='\x1F' | '\x7F'..='\u{9F}' => {
            let code = u32::from(character);
            out.extend_from_slice(b"\\u00");
            for nibble in [code >> 4, code & 15] {
                let digit = char::from_digit(nibble, 16).unwrap_or('0');
                out.extend_from_slice(digit.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(bytes, &mut out);
        out
    }

    #[test]
    fn t20_what_a_terminal_obeys_is_escaped() {
        let text = "a\"\\\r\n\u{1b}[31m\u{7f}\u{9b}2Jé";
        let json = written(text.as_bytes());
        assert!(
            json.iter().all(|byte| *byte >= b' ' && *byte != 0x7F),
            "{json:?}"
        );
        assert!(!json.windows(2).any(|two| two == [0xC2, 0x9B]));
        assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
    }

    proptest! {
        #[test]
        fn any_bytes_become_the_json_of_their_text(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let text = serde_json::from_slice::<String>(&written(&bytes)).unwrap();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
