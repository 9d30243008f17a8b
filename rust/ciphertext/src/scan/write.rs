//! Writing clear text into a JSON string.

/// Appends `clear` with exactly one level of JSON escaping (RFC 8259 §7): quotation mark, reverse
/// solidus and control characters. Everything else passes as it is.
pub(super) fn escaped(clear: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let is_plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    // Without a way out before the end, so that many bytes are looked at together.
    if clear.iter().fold(true, |is, byte| is & is_plain(byte)) {
        return out.extend_from_slice(clear);
    }
    out.reserve(clear.len());
    for byte in clear {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1F => {
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend_from_slice(b"\\u00");
                out.push(digit(byte >> 4));
                out.push(digit(byte & 0xF));
            }
            _ => out.push(*byte),
        }
    }
}
