//! AES-256-GCM in one pass over pieces of any length (NIST SP 800-38D §7.1), for sealing alone.
//!
//! aws-lc seals a message that lies in memory whole; a file is sealed as it arrives. So its counter
//! mode and `ghash`, which is the same hash that `aes-gcm` is built on, are put together here. Nothing
//! is opened this way: to open is to check the tag of all before the first byte, which is what the
//! one-shot call does. That both make the same bytes is a property in the tests of
//! [`crate::seal_file`].

use aws_lc_rs::cipher::{AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use ghash::GHash;
use ghash::universal_hash::UniversalHash as _;
use zeroize::Zeroizing;

/// Length of the tag, bytes.
pub(crate) const TAG_BYTES: usize = 16;
const BLOCK_BYTES: usize = 16;
/// Longest clear text, bytes (SP 800-38D §5.2.1.1): beyond it the 32-bit counter would start again.
pub(crate) const MAX_CLEAR_BYTES: u64 = (1 << 36) - 32;

/// The message is over [`MAX_CLEAR_BYTES`], or the cipher refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Seals one message.
pub(crate) struct Sealing {
    stream: StreamingEncryptingKey,
    hash: GHash,
    /// What the hash is masked with to make the tag: the key stream's first block.
    mask: Zeroizing<[u8; BLOCK_BYTES]>,
    aad_bytes: u64,
    sealed_bytes: u64,
    /// Ciphertext that does not fill a block yet; its first bytes are those that count.
    rest: Vec<u8>,
}

impl Sealing {
    /// Starts a message. An IV is used once with a key.
    pub(crate) fn new(key: &[u8; 32], iv: &[u8; 12], aad: &[u8]) -> Result<Self, Refused> {
        let mut hash_key = Zeroizing::new(ghash::Key::default());
        let mut of_zero = counter_mode(key, [0; BLOCK_BYTES])?;
        next_block(&mut of_zero, hash_key.as_mut_slice())?;
        let mut hash = GHash::new(&hash_key);
        hash.update_padded(aad);

        let mut first = [0; BLOCK_BYTES];
        for (to, from) in first.iter_mut().zip(iv) {
            *to = *from;
        }
        first[BLOCK_BYTES - 1] = 1;
        let mut stream = counter_mode(key, first)?;
        let mut mask = Zeroizing::new([0; BLOCK_BYTES]);
        next_block(&mut stream, mask.as_mut_slice())?;
        Ok(Self {
            stream,
            hash,
            mask,
            aad_bytes: u64::try_from(aad.len()).map_err(|_| Refused)?,
            sealed_bytes: 0,
            rest: Vec::with_capacity(BLOCK_BYTES),
        })
    }

    /// Appends the ciphertext of `clear` to `out`.
    pub(crate) fn push(&mut self, clear: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let length = u64::try_from(clear.len()).map_err(|_| Refused)?;
        let sealed = self.sealed_bytes.checked_add(length).ok_or(Refused)?;
        if sealed > MAX_CLEAR_BYTES {
            return Err(Refused);
        }
        let start = out.len();
        // The cipher asks for room for a block more than it writes.
        let room = clear.len().checked_add(BLOCK_BYTES).ok_or(Refused)?;
        out.resize(start.checked_add(room).ok_or(Refused)?, 0);
        let to = out.get_mut(start..).ok_or(Refused)?;
        let written = self.stream.update(clear, to).map_err(|_| Refused)?;
        if written.written().len() != clear.len() {
            return Err(Refused);
        }
        out.truncate(start.saturating_add(clear.len()));
        self.sealed_bytes = sealed;
        self.absorb(out.get(start..).ok_or(Refused)?);
        Ok(())
    }

    /// The tag.
    pub(crate) fn finish(mut self) -> Result<[u8; TAG_BYTES], Refused> {
        self.hash.update_padded(&self.rest);
        let [aad, sealed] =
            [self.aad_bytes, self.sealed_bytes].map(|bytes| bytes.checked_mul(8).ok_or(Refused));
        let mut lengths = [0; BLOCK_BYTES];
        let both = aad?.to_be_bytes().into_iter().chain(sealed?.to_be_bytes());
        for (to, from) in lengths.iter_mut().zip(both) {
            *to = from;
        }
        self.hash.update(&[lengths.into()]);
        let mut tag = [0; TAG_BYTES];
        let hash = self.hash.finalize();
        for ((to, hash), mask) in tag.iter_mut().zip(hash).zip(self.mask.iter()) {
            *to = hash ^ mask;
        }
        Ok(tag)
    }

    /// Hashes whole blocks, and keeps what is left.
    fn absorb(&mut self, mut sealed: &[u8]) {
        if !self.rest.is_empty() {
            let wanted = BLOCK_BYTES.saturating_sub(self.rest.len());
            let (now, later) = sealed.split_at_checked(wanted).unwrap_or((sealed, &[]));
            self.rest.extend_from_slice(now);
            sealed = later;
            if self.rest.len() < BLOCK_BYTES {
                return;
            }
            self.hash.update_padded(&self.rest);
            self.rest.clear();
        }
        let (blocks, rest) = sealed.as_chunks::<BLOCK_BYTES>();
        // Of whole blocks there is nothing to pad.
        self.hash.update_padded(blocks.as_flattened());
        self.rest.extend_from_slice(rest);
    }
}

fn counter_mode(
    key: &[u8; 32],
    counter: [u8; BLOCK_BYTES],
) -> Result<StreamingEncryptingKey, Refused> {
    let key = UnboundCipherKey::new(&AES_256, key).map_err(|_| Refused)?;
    let counter = EncryptionContext::Iv128(FixedLength::from(counter));
    StreamingEncryptingKey::less_safe_ctr(key, counter).map_err(|_| Refused)
}

/// Takes the next block of a key stream.
fn next_block(stream: &mut StreamingEncryptingKey, block: &mut [u8]) -> Result<(), Refused> {
    let mut room = Zeroizing::new([0; 2 * BLOCK_BYTES]);
    let update = stream.update(&[0; BLOCK_BYTES], room.as_mut_slice());
    let written = update.map_err(|_| Refused)?;
    if written.written().len() != BLOCK_BYTES {
        return Err(Refused);
    }
    block.copy_from_slice(room.get(..BLOCK_BYTES).ok_or(Refused)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use proptest::prelude::*;

    fn at_once(key: &[u8; 32], iv: [u8; 12], aad: &[u8], clear: &[u8]) -> Vec<u8> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        let mut out = clear.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(iv), Aad::from(aad), &mut out)
            .unwrap();
        out
    }

    fn in_pieces(
        key: &[u8; 32],
        iv: [u8; 12],
        aad: &[u8],
        clear: &[u8],
        mut sizes: impl Iterator<Item = usize>,
    ) -> Vec<u8> {
        let mut sealing = Sealing::new(key, &iv, aad).unwrap();
        let (mut out, mut left) = (Vec::new(), clear);
        while !left.is_empty() {
            let size = sizes.next().unwrap_or(left.len()).min(left.len());
            let (now, later) = left.split_at(size);
            sealing.push(now, &mut out).unwrap();
            left = later;
        }
        out.extend_from_slice(&sealing.finish().unwrap());
        out
    }

    /// Test case 14 of the GCM submission (`McGrew` and Viega, appendix B): key, IV and one block of zeros.
    #[test]
    fn the_published_answer_is_made() {
        let made = in_pieces(&[0; 32], [0; 12], b"", &[0; 16], std::iter::empty());
        assert_eq!(made[..4], [0xCE, 0xA7, 0x40, 0x3D]);
        assert_eq!(made[16..20], [0xD0, 0xD1, 0xC8, 0xA7]);
        assert_eq!(made.len(), 32);
    }

    proptest! {
        /// Pieces of any length make what aws-lc makes of the whole.
        #[test]
        fn pieces_of_any_length_make_what_the_whole_makes(
            key: [u8; 32],
            iv: [u8; 12],
            aad in proptest::collection::vec(any::<u8>(), 0..70),
            clear in proptest::collection::vec(any::<u8>(), 0..600),
            sizes in proptest::collection::vec(0_usize..70, 0..40),
        ) {
            let pieces = in_pieces(&key, iv, &aad, &clear, sizes.into_iter());
            prop_assert_eq!(pieces, at_once(&key, iv, &aad, &clear));
        }
    }

    /// The counter passes a byte of its own, which a short text does not show.
    #[test]
    fn a_long_text_is_made_as_the_whole_is() {
        let clear: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
        let sizes = [1, 4095, 65_536, 17, 1_000_003].into_iter().cycle();
        let pieces = in_pieces(&[7; 32], [9; 12], b"aad", &clear, sizes);
        assert_eq!(pieces, at_once(&[7; 32], [9; 12], b"aad", &clear));
    }

    #[test]
    fn more_than_the_counter_can_count_is_refused() {
        let mut sealing = Sealing::new(&[7; 32], &[9; 12], b"").unwrap();
        sealing.sealed_bytes = MAX_CLEAR_BYTES - 1;
        let mut out = Vec::new();
        sealing.push(b"x", &mut out).unwrap();
        assert_eq!(sealing.push(b"x", &mut out), Err(Refused));
    }
}
