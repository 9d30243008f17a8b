//! Encrypted files (ciphertext specification §2): `%EVENC`, a head of 55 bytes, the ciphertext with
//! its tag, and a checksum.
//!
//! A file is opened only as a whole: nothing of it is clear before its tag was checked.

use crate::curve::Curve;
use crate::key_cache::EphemeralKey;
use crate::open::OpenError;

/// How every encrypted file starts.
pub(crate) const START: &[u8; 6] = b"%EVENC";
/// The version that is written: P-256.
pub(crate) const VERSION_P256: u8 = 3;
/// Bytes before the ciphertext, which the head itself says.
pub(crate) const HEAD_BYTES: usize = 55;
/// What a file is longer than its clear text, bytes: head, tag and checksum.
pub const FILE_OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES + CHECKSUM_BYTES;

const VERSION_SECP256K1: u8 = 2;
const TAG_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

/// The parts of a file, in its bytes.
pub(crate) struct EncryptedFile<'f> {
    pub(crate) ephemeral: EphemeralKey,
    pub(crate) iv: [u8; 12],
    pub(crate) is_debug: bool,
    pub(crate) sealed: &'f [u8],
}

/// Why bytes are not taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The form is that of a file, the checksum is not.
    Damaged,
    /// A version that used a nonce twice (04, 05).
    NeverOpened,
    /// They have another form.
    NotAFile,
}

impl Unfit {
    pub(crate) fn as_error(self) -> OpenError {
        match self {
            Self::Damaged => OpenError::Damaged,
            Self::NeverOpened => OpenError::UnsupportedVersion,
            Self::NotAFile => OpenError::NotAFile,
        }
    }
}

impl<'f> EncryptedFile<'f> {
    /// Takes a file apart: its form first, then its checksum, then its version.
    pub(crate) fn parse(bytes: &'f [u8]) -> Result<Self, Unfit> {
        let file = split(bytes)?;
        let curve = match file.version {
            VERSION_SECP256K1 => Curve::Secp256k1,
            VERSION_P256 => Curve::P256,
            4 | 5 => return Err(Unfit::NeverOpened),
            _ => return Err(Unfit::NotAFile),
        };
        if file.flags > 1 {
            return Err(Unfit::NotAFile);
        }
        let ephemeral = EphemeralKey {
            curve,
            compressed: file.ephemeral,
        };
        Ok(Self {
            ephemeral,
            iv: file.iv,
            is_debug: file.flags == 1,
            sealed: file.sealed,
        })
    }
}

/// A file whose checksum is right, of any version.
struct Parts<'f> {
    version: u8,
    ephemeral: [u8; 33],
    iv: [u8; 12],
    flags: u8,
    sealed: &'f [u8],
}

fn split(bytes: &[u8]) -> Result<Parts<'_>, Unfit> {
    let (covered, checksum) = bytes.split_last_chunk().ok_or(Unfit::NotAFile)?;
    let parts = parts(covered).ok_or(Unfit::NotAFile)?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*checksum) {
        return Err(Unfit::Damaged);
    }
    Ok(parts)
}

/// `None`: the form is another.
fn parts(covered: &[u8]) -> Option<Parts<'_>> {
    let rest = covered.strip_prefix(START)?;
    let (version, rest) = rest.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (ephemeral, rest) = rest.split_first_chunk()?;
    let (iv, rest) = rest.split_first_chunk()?;
    let (flags, sealed) = rest.split_first()?;
    let is_whole =
        usize::from(u16::from_le_bytes(*length)) == HEAD_BYTES && sealed.len() >= TAG_BYTES;
    is_whole.then_some(Parts {
        version: *version,
        ephemeral: *ephemeral,
        iv: *iv,
        flags: *flags,
        sealed,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::keys::{AppPrivateKey, Keyring, Secp256k1PrivateKey};
    use crate::open::{OpenPolicy, OpenSession, open_file};

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
        for (version, curve) in [(2, Curve::Secp256k1), (3, Curve::P256)] {
            let bytes = file(version, 1, &[7; 20]);
            let parsed = EncryptedFile::parse(&bytes).unwrap_or_else(|unfit| panic!("{unfit:?}"));
            assert_eq!(parsed.ephemeral.compressed, [2; 33]);
            assert_eq!(parsed.ephemeral.curve, curve);
            assert_eq!(parsed.iv, [3; 12]);
            assert!(parsed.is_debug);
            assert_eq!(parsed.sealed, &[7; 20]);
        }
    }

    #[test]
    fn what_only_starts_like_a_file_is_told_from_one_that_is_damaged() {
        let whole = file(3, 0, &[7; 16]);
        assert_eq!(EncryptedFile::parse(&whole).err(), None);
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        let last = whole.len() - 1;
        for (bytes, unfit) in [
            (flipped(last), Unfit::Damaged),
            (flipped(60), Unfit::Damaged),
            (flipped(0), Unfit::NotAFile),
            (flipped(7), Unfit::NotAFile),
            (whole[..last].to_vec(), Unfit::NotAFile),
            (file(3, 0, &[7; 15]), Unfit::NotAFile),
            (file(3, 2, &[7; 16]), Unfit::NotAFile),
            (file(1, 0, &[7; 16]), Unfit::NotAFile),
            (file(6, 0, &[7; 16]), Unfit::NotAFile),
            (b"%EVENC".to_vec(), Unfit::NotAFile),
            (Vec::new(), Unfit::NotAFile),
        ] {
            assert_eq!(EncryptedFile::parse(&bytes).err(), Some(unfit), "{bytes:?}");
        }
        // One byte short of a longer file the form is right, and the checksum is not.
        let longer = file(3, 0, &[7; 17]);
        let cut = &longer[..longer.len() - 1];
        assert_eq!(EncryptedFile::parse(cut).err(), Some(Unfit::Damaged));
    }

    #[test]
    fn a_version_that_used_a_nonce_twice_is_never_opened() {
        for version in [4, 5] {
            let bytes = file(version, 0, &[7; 16]);
            assert_eq!(EncryptedFile::parse(&bytes).err(), Some(Unfit::NeverOpened));
        }
    }

    #[test]
    fn the_known_file_opens_with_the_key_of_its_curve() {
        let text = include_str!("../../../tests/vectors/ciphertext/vectors.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let vector = &vectors["files"][0];
        let bytes = unhex(vector["file_hex"].as_str().unwrap());
        let key = |byte| Secp256k1PrivateKey::from_bytes(&[byte; 32]).unwrap();
        let open = |keyring: &Keyring| {
            let policy = OpenPolicy {
                dangerous_accept_debug: false,
                distinct_keys: 1,
            };
            open_file(&bytes, &mut OpenSession::new(keyring, policy))
        };
        let keyring = Keyring::with_secp256k1(vec![], vec![key(0x11), key(0x22)]).unwrap();
        let clear = open(&keyring).unwrap();
        assert_eq!(*clear, unhex(vector["plain_hex"].as_str().unwrap()));
        let p256 = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        let other = Keyring::with_secp256k1(vec![p256], vec![key(0x22)]).unwrap();
        assert_eq!(open(&other), Err(OpenError::CannotOpen));
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap();
        let pair = |pair: &[u8]| u8::try_from((digit(pair[0]) << 4) | digit(pair[1])).unwrap();
        text.as_bytes().chunks(2).map(pair).collect()
    }
}
