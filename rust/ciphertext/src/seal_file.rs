//! Making encrypted files (ciphertext specification §2), version 03: P-256.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::file::START;
use crate::kdf;
use crate::keys::{AppPrivateKey, AppPublicKey};
use crate::random::Random;
use crate::seal::SealError;

/// Encrypts a file for an app.
///
/// The result is 75 bytes longer than `clear`.
///
/// # Errors
///
/// [`SealError::Random`], [`SealError::Aead`], in this order.
pub fn seal_file(
    clear: &[u8],
    app: &AppPublicKey,
    random: &mut dyn Random,
) -> Result<Vec<u8>, SealError> {
    let ephemeral = AppPrivateKey::generate(random).map_err(|_| SealError::Random)?;
    let mut iv = [0; 12];
    random.fill(&mut iv).map_err(|_| SealError::Random)?;
    let shared = ephemeral
        .agree(app.uncompressed())
        .ok_or(SealError::Random)?;
    let key = kdf::derive(shared.as_slice(), ephemeral.public().uncompressed());
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| SealError::Aead)?;
    let mut file = Vec::with_capacity(clear.len().saturating_add(OVERHEAD_BYTES));
    file.extend_from_slice(START);
    file.push(VERSION_P256);
    file.extend_from_slice(&HEAD_BYTES.to_le_bytes());
    file.extend_from_slice(ephemeral.public().compressed());
    file.extend_from_slice(&iv);
    file.push(FLAGS);
    let start = file.len();
    file.extend_from_slice(clear);
    let tag = LessSafeKey::new(key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(iv),
            Aad::from(app.compressed()),
            file.get_mut(start..).unwrap_or_default(),
        )
        .map_err(|_| SealError::Aead)?;
    file.extend_from_slice(tag.as_ref());
    let checksum = crc32fast::hash(&file).to_le_bytes();
    file.extend_from_slice(&checksum);
    Ok(file)
}

const VERSION_P256: u8 = 3;
/// Not made in debug mode.
const FLAGS: u8 = 0;
const HEAD_BYTES: u16 = 55;
/// Head, tag and checksum.
const OVERHEAD_BYTES: usize = 55 + 16 + 4;
