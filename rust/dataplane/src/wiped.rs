//! JSON that holds secrets: written into memory that is wiped, also where it grew out of it.

use std::io;

use cloister_ciphertext::grow;
use serde::Serialize;
use zeroize::Zeroizing;

/// Writes a value as JSON.
///
/// # Errors
///
/// As [`serde_json::to_writer`]: the value has no JSON form.
pub(crate) fn to_json(value: &impl Serialize) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    let mut writer = Wiped(Zeroizing::new(Vec::with_capacity(FIRST_BYTES)));
    serde_json::to_writer(&mut writer, value)?;
    Ok(writer.0)
}

struct Wiped(Zeroizing<Vec<u8>>);

impl io::Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let needed = self.0.len().saturating_add(bytes.len());
        grow(&mut self.0, needed);
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const FIRST_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_json_however_much_it_grows() {
        let value: Vec<String> = (0..5_000).map(|number| format!("\"{number}\"\n")).collect();
        let written = to_json(&value).unwrap();
        assert!(written.len() > 10 * FIRST_BYTES);
        assert_eq!(*written, serde_json::to_vec(&value).unwrap());
    }
}
