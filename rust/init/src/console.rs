//! The console: what init says, on standard error. The host reads it; no secret goes there.

use std::io::Write;

/// Says one line. Nobody listening is no error.
pub fn say(message: &str) {
    let line = format!("init: {}\n", printable(message));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// `text` without control characters, which a terminal would obey.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert!(!printable("a\x1b[2Jb\r\n").contains(['\x1b', '\r', '\n']));
        assert_eq!(printable("größe"), "größe");
    }
}
