//! Platform configuration registers (PCRs): the measurements an enclave is known by.
//!
//! This module parses values and compares them; it trusts nothing. Whether a document that carries
//! them is genuine is decided in [`crate::verify()`].
//!
//! Meaning of the registers: PCR0 the image, PCR1 kernel and boot ramdisk, PCR2 the application,
//! PCR3 the IAM role of the parent instance, PCR4 its id, PCR8 the signing certificate; 16 and above
//! are the application's own.

use std::collections::BTreeMap;
use std::fmt;

use crate::policy::PolicyError;

/// Length of a register in bytes: SHA-384, the only digest the NSM uses ([NSM-AP] §3.1).
///
/// [NSM-AP]: https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md
pub const PCR_BYTES: usize = 48;

/// Number of registers; indexes are below it ([NSM-AP] §3.2.2.2).
pub(crate) const PCR_COUNT: u8 = 32;

/// The registers that identify code; a measurement set without one of them would accept any.
const IDENTIFYING: [PcrIndex; 4] = [PcrIndex(0), PcrIndex(1), PcrIndex(2), PcrIndex(8)];

/// Index of a register, below 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PcrIndex(u8);

impl PcrIndex {
    /// The register that measures the whole image.
    pub const IMAGE: Self = Self(0);

    /// The register of this index, or `None` from 32 on.
    pub fn new(index: u64) -> Option<Self> {
        match u8::try_from(index) {
            Ok(index) if index < PCR_COUNT => Some(Self(index)),
            _ => None,
        }
    }

    /// The index as a number.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for PcrIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PCR{}", self.0)
    }
}

/// The registers of one document, each 32, 48 or 64 bytes long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcrs(pub(crate) BTreeMap<PcrIndex, Vec<u8>>);

impl Pcrs {
    /// Value of one register, when the document has it.
    pub fn value(&self, index: PcrIndex) -> Option<&[u8]> {
        self.0.get(&index).map(Vec::as_slice)
    }

    /// All registers, by index.
    pub fn iter(&self) -> impl Iterator<Item = (PcrIndex, &[u8])> {
        self.0
            .iter()
            .map(|(index, value)| (*index, value.as_slice()))
    }

    /// True when PCR0 is all zero, which is how the hypervisor marks an enclave in debug mode. Other
    /// registers of such an enclave may have values: genuine debug documents carry PCR3 and PCR4.
    pub fn is_debug(&self) -> bool {
        self.value(PcrIndex::IMAGE)
            .is_none_or(|value| value.iter().all(|byte| *byte == 0))
    }
}

/// One accepted set of registers: a document matches when every register named here has the value
/// given here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurements(BTreeMap<PcrIndex, [u8; PCR_BYTES]>);

impl Measurements {
    /// A set of registers and their values.
    ///
    /// # Errors
    ///
    /// In this order:
    /// - [`PolicyError::DuplicatePcr`]: a register is given twice;
    /// - [`PolicyError::NothingMeasured`]: none of PCR 0, 1, 2 and 8 is given.
    pub fn new(
        registers: impl IntoIterator<Item = (PcrIndex, [u8; PCR_BYTES])>,
    ) -> Result<Self, PolicyError> {
        let mut accepted = BTreeMap::new();
        for (index, value) in registers {
            if accepted.insert(index, value).is_some() {
                return Err(PolicyError::DuplicatePcr { index });
            }
        }
        if !IDENTIFYING.iter().any(|index| accepted.contains_key(index)) {
            return Err(PolicyError::NothingMeasured);
        }
        Ok(Self(accepted))
    }

    /// The registers and their values, by index.
    pub fn iter(&self) -> impl Iterator<Item = (PcrIndex, &[u8; PCR_BYTES])> {
        self.0.iter().map(|(index, value)| (*index, value))
    }

    pub(crate) fn match_all(&self, pcrs: &Pcrs) -> bool {
        self.0
            .iter()
            .all(|(index, value)| pcrs.value(*index) == Some(value.as_slice()))
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| DIGITS.get(usize::from(digit)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcrs(entries: &[(u8, [u8; 48])]) -> Pcrs {
        Pcrs(
            entries
                .iter()
                .map(|(index, value)| (PcrIndex(*index), value.to_vec()))
                .collect(),
        )
    }

    /// 32 is the first index the specification forbids; comparing with `<=` would let it in.
    #[test]
    fn the_upper_bound_of_an_index_is_excluded() {
        assert_eq!(PcrIndex::new(31), Some(PcrIndex(31)));
        assert_eq!(PcrIndex::new(32), None);
        assert_eq!(PcrIndex::new(256), None);
    }

    /// A set of PCR3 and PCR4 alone would accept any code on the right machine.
    #[test]
    fn a_set_must_name_code() {
        assert_eq!(Measurements::new([]), Err(PolicyError::NothingMeasured));
        let machine = [(PcrIndex(3), [1; 48]), (PcrIndex(4), [1; 48])];
        assert_eq!(
            Measurements::new(machine),
            Err(PolicyError::NothingMeasured)
        );
        for index in [0, 1, 2, 8] {
            Measurements::new([(PcrIndex(index), [1; 48])]).unwrap();
        }
        assert_eq!(
            Measurements::new([(PcrIndex(0), [1; 48]), (PcrIndex(0), [2; 48])]),
            Err(PolicyError::DuplicatePcr { index: PcrIndex(0) })
        );
    }

    #[test]
    fn every_named_register_must_match() {
        let set = Measurements::new([(PcrIndex(0), [1; 48]), (PcrIndex(8), [2; 48])]).unwrap();
        assert!(set.match_all(&pcrs(&[(0, [1; 48]), (1, [9; 48]), (8, [2; 48])])));
        assert!(!set.match_all(&pcrs(&[(0, [1; 48]), (8, [3; 48])])));
        assert!(!set.match_all(&pcrs(&[(0, [1; 48])])));
    }

    #[test]
    fn debug_is_a_zero_pcr0_whatever_the_others_are() {
        assert!(pcrs(&[(0, [0; 48]), (4, [7; 48])]).is_debug());
        assert!(!pcrs(&[(0, [7; 48]), (4, [0; 48])]).is_debug());
        assert!(pcrs(&[(4, [7; 48])]).is_debug());
    }

    #[test]
    fn bytes_are_written_as_hex() {
        assert_eq!(hex(&[0x00, 0x9f, 0xab]), "009fab");
    }
}
