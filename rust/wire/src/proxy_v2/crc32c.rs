//! CRC-32C (Castagnoli, RFC 3720 §12.1 and appendix B.4), which a PROXY header may carry.
//!
//! It finds accidents and nothing else: whoever writes a header can write the checksum.

use std::ops::Range;

/// The checksum of `bytes` with those in `zeros` taken as 0 (proxy-protocol.txt §2.2.3).
pub(super) fn with_zeros(bytes: &[u8], zeros: Range<usize>) -> u32 {
    let step = |state: u32, (position, byte): (usize, &u8)| {
        let byte = if zeros.contains(&position) { 0 } else { *byte };
        let [low, ..] = state.to_le_bytes();
        let entry = TABLE.get(usize::from(low ^ byte)).copied();
        (state >> 8) ^ entry.unwrap_or_default()
    };
    !bytes.iter().enumerate().fold(u32::MAX, step)
}

/// The reversed polynomial 0x1EDC6F41.
const POLYNOMIAL: u32 = 0x82F6_3B78;

static TABLE: [u32; 256] = table();

#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "run by the compiler: the loop ends at 256"
)]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0_u32;
    while index < 256 {
        let mut value = index;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ (POLYNOMIAL * (value & 1));
            bit += 1;
        }
        table[index as usize] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3720 appendix B.4, as numbers.
    #[test]
    fn the_examples_of_the_specification_are_met() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, expected) in [
            (&[0; 32][..], 0x8A91_36AA),
            (&[0xFF; 32], 0x62A8_AB43),
            (&ascending, 0x46DD_794E),
            (&descending, 0x113F_DB5C),
        ] {
            assert_eq!(with_zeros(bytes, 0..0), expected);
        }
        assert_eq!(with_zeros(&[0xFF; 32], 0..32), 0x8A91_36AA);
    }
}
