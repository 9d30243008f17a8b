//! Making encrypted files (ciphertext specification §2), version 03: P-256.
//!
//! A file that lies in memory is sealed by one call; one that arrives in pieces by a [`FileSealer`],
//! which holds a block of it. Both make the same bytes.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::curve::Curve;
use crate::file::{FILE_OVERHEAD_BYTES, HEAD_BYTES, START, VERSION_P256};
use crate::gcm::{MAX_CLEAR_BYTES, Refused, Sealing};
use crate::kdf;
use crate::keys::{AppPrivateKey, AppPublicKey};
use crate::random::Random;
use crate::seal::SealError;

/// Longest clear text of a file, bytes: what AES-GCM can seal under one nonce.
pub const MAX_SEALED_FILE_BYTES: u64 = MAX_CLEAR_BYTES;

/// Encrypts a file for an app.
///
/// The result is [`FILE_OVERHEAD_BYTES`] longer than `clear`.
///
/// # Errors
///
/// [`SealError::Random`], [`SealError::Aead`], in this order.
pub fn seal_file(
    clear: &[u8],
    app: &AppPublicKey,
    random: &mut dyn Random,
) -> Result<Vec<u8>, SealError> {
    let begun = Begun::new(app, random)?;
    let key = UnboundKey::new(&AES_256_GCM, begun.key.as_slice()).map_err(|_| SealError::Aead)?;
    let mut file = Vec::with_capacity(clear.len().saturating_add(FILE_OVERHEAD_BYTES));
    file.extend_from_slice(&begun.head);
    let start = file.len();
    file.extend_from_slice(clear);
    let tag = LessSafeKey::new(key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(begun.iv),
            Aad::from(app.compressed()),
            file.get_mut(start..).unwrap_or_default(),
        )
        .map_err(|_| SealError::Aead)?;
    file.extend_from_slice(tag.as_ref());
    let checksum = crc32fast::hash(&file).to_le_bytes();
    file.extend_from_slice(&checksum);
    Ok(file)
}

/// Encrypts a file that arrives in pieces, in constant memory.
///
/// What comes out is a file when [`FileSealer::finish`] has written its end; one that was dropped
/// before has no tag and no checksum, and nothing opens it.
pub struct FileSealer {
    sealing: Box<Sealing>,
    checksum: crc32fast::Hasher,
}

impl FileSealer {
    /// Starts a file and appends its head to `out`.
    ///
    /// # Errors
    ///
    /// [`SealError::Random`], [`SealError::Aead`], in this order.
    pub fn begin(
        app: &AppPublicKey,
        random: &mut dyn Random,
        out: &mut Vec<u8>,
    ) -> Result<Self, SealError> {
        let begun = Begun::new(app, random)?;
        let sealing = Sealing::new(&begun.key, &begun.iv, app.compressed()).map_err(refused)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&begun.head);
        out.extend_from_slice(&begun.head);
        Ok(Self {
            sealing: Box::new(sealing),
            checksum,
        })
    }

    /// Takes the next piece, of any length, and appends its ciphertext to `out`.
    ///
    /// # Errors
    ///
    /// [`SealError::Aead`]: more than [`MAX_SEALED_FILE_BYTES`].
    pub fn push(&mut self, clear: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let start = out.len();
        self.sealing.push(clear, out).map_err(refused)?;
        self.checksum.update(out.get(start..).unwrap_or_default());
        Ok(())
    }

    /// Appends tag and checksum to `out`: the file is whole.
    ///
    /// # Errors
    ///
    /// [`SealError::Aead`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), SealError> {
        let tag = self.sealing.finish().map_err(refused)?;
        self.checksum.update(&tag);
        out.extend_from_slice(&tag);
        out.extend_from_slice(&self.checksum.finalize().to_le_bytes());
        Ok(())
    }
}

impl fmt::Debug for FileSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSealer").finish_non_exhaustive()
    }
}

/// What is decided before the first byte of a file.
struct Begun {
    head: Vec<u8>,
    iv: [u8; 12],
    key: Zeroizing<[u8; 32]>,
}

impl Begun {
    fn new(app: &AppPublicKey, random: &mut dyn Random) -> Result<Self, SealError> {
        let ephemeral = AppPrivateKey::generate(random).map_err(|_| SealError::Random)?;
        let mut iv = [0; 12];
        random.fill(&mut iv).map_err(|_| SealError::Random)?;
        let shared = ephemeral
            .agree(app.uncompressed())
            .ok_or(SealError::Random)?;
        let point = ephemeral.public().uncompressed();
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(START);
        head.push(VERSION_P256);
        head.extend_from_slice(&HEAD_LENGTH.to_le_bytes());
        head.extend_from_slice(ephemeral.public().compressed());
        head.extend_from_slice(&iv);
        head.push(FLAGS);
        let key = kdf::derive(Curve::P256, shared.as_slice(), point);
        Ok(Self { head, iv, key })
    }
}

fn refused(_: Refused) -> SealError {
    SealError::Aead
}

/// Not made in debug mode.
const FLAGS: u8 = 0;
/// [`HEAD_BYTES`], as the head says it.
const HEAD_LENGTH: u16 = 55;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keyring;
    use crate::open::{OpenPolicy, OpenSession, open_file};
    use crate::seal::tests::Counting;
    use proptest::prelude::*;

    fn app() -> AppPrivateKey {
        AppPrivateKey::from_bytes(&[0x11; 32]).unwrap()
    }

    fn in_pieces(pieces: &[Vec<u8>]) -> Vec<u8> {
        let (app, mut out) = (app(), Vec::new());
        let mut sealer = FileSealer::begin(app.public(), &mut Counting(3), &mut out).unwrap();
        for piece in pieces {
            sealer.push(piece, &mut out).unwrap();
        }
        sealer.finish(&mut out).unwrap();
        out
    }

    fn opened(file: &[u8]) -> Vec<u8> {
        let keyring = Keyring::new(vec![app()]).unwrap();
        let policy = OpenPolicy {
            dangerous_accept_debug: false,
            distinct_keys: 1,
        };
        let clear = open_file(file, &mut OpenSession::new(&keyring, policy)).unwrap();
        clear.to_vec()
    }

    proptest! {
        #[test]
        fn pieces_make_the_file_that_the_whole_makes_and_it_opens(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 0..8),
        ) {
            let clear = pieces.concat();
            let made = in_pieces(&pieces);
            let whole = seal_file(&clear, app().public(), &mut Counting(3)).unwrap();
            prop_assert_eq!(&made, &whole);
            prop_assert_eq!(made.len().checked_sub(clear.len()), Some(FILE_OVERHEAD_BYTES));
            prop_assert_eq!(opened(&made), clear);
        }
    }

    /// Without tag and checksum it is no file, wherever it stopped.
    #[test]
    fn a_file_that_was_not_finished_is_not_opened() {
        let whole = in_pieces(&[b"clear".to_vec()]);
        assert_eq!(opened(&whole), b"clear");
        let keyring = Keyring::new(vec![app()]).unwrap();
        for length in 0..whole.len() {
            let policy = OpenPolicy {
                dangerous_accept_debug: false,
                distinct_keys: 1,
            };
            let mut session = OpenSession::new(&keyring, policy);
            assert!(
                open_file(&whole[..length], &mut session).is_err(),
                "{length}"
            );
        }
    }
}
