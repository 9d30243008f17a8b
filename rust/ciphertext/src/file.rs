//! Encrypted files (ciphertext specification §2): `%EVENC`, a head of 55 bytes, the ciphertext with
//! its tag, and a checksum.
//!
//! A file is opened only as a whole: nothing of it is clear before its tag was checked.

use crate::open::OpenError;

/// How every encrypted file starts.
pub(crate) const START: &[u8; 6] = b"%EVENC";
/// Bytes before the ciphertext, which the head itself says.
const HEAD_BYTES: usize = 55;
const TAG_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

/// The parts of a file, in its bytes.
#[derive(Debug)]
pub(crate) struct EncryptedFile<'f> {
    pub(crate) ephemeral: [u8; 33],
    pub(crate) iv: [u8; 12],
    pub(crate) is_debug: bool,
    pub(crate) sealed: &'f [u8],
}

impl<'f> EncryptedFile<'f> {
    /// Takes a file apart.
    ///
    /// `Ok(None)`: it only starts like one, and passes as it is.
    ///
    /// # Errors
    ///
    /// [`OpenError::UnsupportedVersion`]: a whole file of a version on secp256k1 (02), or of one that
    /// used a nonce twice (04, 05).
    pub(crate) fn parse(bytes: &'f [u8]) -> Result<Option<Self>, OpenError> {
        let Some((head, sealed)) = split(bytes) else {
            return Ok(None);
        };
        match head.first() {
            Some(VERSION_P256) => {}
            Some(0x02 | 0x04 | 0x05) => return Err(OpenError::UnsupportedVersion),
            _ => return Ok(None),
        }
        let parts = || {
            let ephemeral = head.get(3..36)?.try_into().ok()?;
            let iv = head.get(36..48)?.try_into().ok()?;
            let flags = *head.get(48)?;
            (flags <= 1).then_some(Self {
                ephemeral,
                iv,
                is_debug: flags == 1,
                sealed,
            })
        };
        Ok(parts())
    }
}

/// The head behind the magic, and the ciphertext with its tag; `None`: the shape is another, or the
/// checksum is wrong.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (covered, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let (head, sealed) = covered.split_at_checked(HEAD_BYTES)?;
    let head = head.strip_prefix(START)?;
    let length = head.get(1..3)?.try_into().ok().map(u16::from_le_bytes)?;
    let is_whole = usize::from(length) == HEAD_BYTES && sealed.len() >= TAG_BYTES;
    let is_right = crc32fast::hash(covered).to_le_bytes() == checksum;
    (is_whole && is_right).then_some((head, sealed))
}

const VERSION_P256: &u8 = &0x03;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file with any bytes for a ciphertext.
    pub(crate) fn file(version: u8, flags: u8, sealed: &[u8]) -> Vec<u8> {
        let mut bytes = START.to_vec();
        bytes.push(version);
        bytes.extend_from_slice(&55_u16.to_le_bytes());
        bytes.extend_from_slice(&[2; 33]);
        bytes.extend_from_slice(&[3; 12]);
        bytes.push(flags);
        bytes.extend_from_slice(sealed);
        let checksum = crc32fast::hash(&bytes).to_le_bytes();
        bytes.extend_from_slice(&checksum);
        bytes
    }

    #[test]
    fn the_parts_are_where_the_specification_says() {
        let bytes = file(3, 1, &[7; 20]);
        let parsed = EncryptedFile::parse(&bytes).unwrap().unwrap();
        assert_eq!(parsed.ephemeral, [2; 33]);
        assert_eq!(parsed.iv, [3; 12]);
        assert!(parsed.is_debug);
        assert_eq!(parsed.sealed, &[7; 20]);
    }

    #[test]
    fn what_only_starts_like_a_file_is_none() {
        let whole = file(3, 0, &[7; 16]);
        assert!(EncryptedFile::parse(&whole).unwrap().is_some());
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let cut = &whole[..whole.len() - 1];
        for bytes in [
            &flipped,
            cut,
            &file(3, 0, &[7; 15]),
            &file(3, 2, &[7; 16]),
            &file(1, 0, &[7; 16]),
            b"%EVENC",
            b"",
        ] {
            assert!(EncryptedFile::parse(bytes).unwrap().is_none());
        }
    }

    #[test]
    fn a_version_that_is_never_opened_is_said() {
        for version in [2, 4, 5] {
            let bytes = file(version, 0, &[7; 16]);
            assert_eq!(
                EncryptedFile::parse(&bytes).err(),
                Some(OpenError::UnsupportedVersion)
            );
        }
    }

    /// The published vector is on secp256k1: its shape is read, and the version refused.
    #[test]
    fn the_vector_has_the_shape_that_is_read() {
        let text = include_str!("../../../tests/vectors/ciphertext/vectors.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let hex = vectors["files"][0]["file_hex"].as_str().unwrap();
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap();
        let pair = |pair: &[u8]| u8::try_from(16 * digit(pair[0]) + digit(pair[1])).unwrap();
        let bytes: Vec<u8> = hex.as_bytes().chunks(2).map(pair).collect();
        assert!(split(&bytes).is_some());
        assert_eq!(
            EncryptedFile::parse(&bytes).err(),
            Some(OpenError::UnsupportedVersion)
        );
    }
}
