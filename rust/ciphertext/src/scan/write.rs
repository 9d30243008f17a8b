//! Writing clear text into a JSON string.

use super::sink::Sink;

/// Appends `clear` with exactly one level of JSON escaping (RFC 8259 §7): quotation mark, reverse
/// solidus and control characters. Everything else passes as it is.
pub(super) fn escaped(clear: &[u8], out: &mut impl Sink) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let is_plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    // Without a way out before the end, so that many bytes are looked at together.
    if clear.iter().fold(true, |is, byte| is & is_plain(byte)) {
        return out.put(clear);
    }
    for byte in clear {
        match byte {
            b'"' => out.put(b"\\\""),
            b'\\' => out.put(b"\\\\"),
            b'\n' => out.put(b"\\n"),
            b'\r' => out.put(b"\\r"),
            b'\t' => out.put(b"\\t"),
            0..=0x1F => {
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.put(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xF)]);
            }
            _ => out.put(&[*byte]),
        }
    }
}
