//! The registers: 32 of 48 bytes, extended by hashing, locked for good.

use aws_lc_rs::digest::{Context, SHA384};
use cloister_nsm::{ErrorCode, Pcr};

use crate::error::SimulatorError;

/// The registers of one enclave.
#[derive(Debug, Clone)]
pub(crate) struct PcrBank {
    registers: [Register; PCR_COUNT as usize],
}

#[derive(Debug, Clone, Copy)]
struct Register {
    value: [u8; 48],
    is_locked: bool,
}

impl PcrBank {
    /// The registers at boot: `measured` as given, the others zero, 0 to 15 locked.
    pub(crate) fn booted(
        measured: impl IntoIterator<Item = (u16, [u8; 48])>,
    ) -> Result<Self, SimulatorError> {
        let empty = Register {
            value: [0; 48],
            is_locked: false,
        };
        let mut registers = [empty; PCR_COUNT as usize];
        for (index, value) in measured {
            let register = registers
                .get_mut(usize::from(index))
                .ok_or(SimulatorError::PcrIndex { index })?;
            register.value = value;
        }
        for register in registers.iter_mut().take(LOCKED_AT_BOOT) {
            register.is_locked = true;
        }
        Ok(Self { registers })
    }

    pub(crate) fn describe(&self, index: u16) -> Result<Pcr, ErrorCode> {
        let register = self
            .registers
            .get(usize::from(index))
            .ok_or(ErrorCode::InvalidIndex)?;
        Ok(Pcr {
            is_locked: register.is_locked,
            value: register.value.to_vec(),
        })
    }

    pub(crate) fn extend(&mut self, index: u16, data: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let register = self.unlocked(index)?;
        let mut hash = Context::new(&SHA384);
        hash.update(&register.value);
        hash.update(data);
        register.value = hash
            .finish()
            .as_ref()
            .try_into()
            .map_err(|_| ErrorCode::InternalError)?;
        Ok(register.value.to_vec())
    }

    pub(crate) fn lock(&mut self, index: u16) -> Result<(), ErrorCode> {
        self.unlocked(index)?.is_locked = true;
        Ok(())
    }

    /// Locks the registers below `range`; those that are locked stay so.
    pub(crate) fn lock_below(&mut self, range: u16) -> Result<(), ErrorCode> {
        if range > PCR_COUNT {
            return Err(ErrorCode::InvalidIndex);
        }
        for register in self.registers.iter_mut().take(usize::from(range)) {
            register.is_locked = true;
        }
        Ok(())
    }

    /// The locked registers, which are those that a document carries.
    pub(crate) fn locked(&self) -> impl Iterator<Item = (u16, &[u8; 48])> {
        (0..)
            .zip(&self.registers)
            .filter(|(_, register)| register.is_locked)
            .map(|(index, register)| (index, &register.value))
    }

    fn unlocked(&mut self, index: u16) -> Result<&mut Register, ErrorCode> {
        let register = self
            .registers
            .get_mut(usize::from(index))
            .ok_or(ErrorCode::InvalidIndex)?;
        if register.is_locked {
            return Err(ErrorCode::ReadOnlyIndex);
        }
        Ok(register)
    }
}

/// Number of registers of an NSM.
pub(crate) const PCR_COUNT: u16 = 32;
const LOCKED_AT_BOOT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_of_the_hypervisor_are_locked_at_boot() {
        let mut bank = PcrBank::booted([(0, [9; 48]), (4, [7; 48])]).unwrap();
        assert_eq!(
            bank.describe(4),
            Ok(Pcr {
                is_locked: true,
                value: vec![7; 48]
            })
        );
        assert_eq!(bank.extend(15, b"x"), Err(ErrorCode::ReadOnlyIndex));
        assert_eq!(bank.lock(0), Err(ErrorCode::ReadOnlyIndex));
        assert_eq!(bank.locked().count(), 16);
        bank.extend(16, b"x").unwrap();
        let beyond = PcrBank::booted([(32, [0; 48])]);
        assert_eq!(beyond.unwrap_err(), SimulatorError::PcrIndex { index: 32 });
    }

    /// SHA384(00×48 ‖ "abc"), computed with `openssl dgst -sha384`.
    #[test]
    fn extending_hashes_the_old_value_and_the_data() {
        let mut bank = PcrBank::booted([]).unwrap();
        let mut expected = vec![0; 48];
        expected.extend_from_slice(b"abc");
        let expected = aws_lc_rs::digest::digest(&SHA384, &expected);
        let first = bank.extend(20, b"abc").unwrap();
        assert_eq!(first, expected.as_ref());
        assert_ne!(bank.extend(20, b"abc").unwrap(), first);
        bank.lock(20).unwrap();
        assert_eq!(bank.extend(20, b"abc"), Err(ErrorCode::ReadOnlyIndex));
    }

    #[test]
    fn indexes_and_ranges_are_bounded() {
        let mut bank = PcrBank::booted([]).unwrap();
        assert_eq!(bank.describe(32), Err(ErrorCode::InvalidIndex));
        assert_eq!(bank.extend(32, b""), Err(ErrorCode::InvalidIndex));
        assert_eq!(bank.lock(u16::MAX), Err(ErrorCode::InvalidIndex));
        assert_eq!(bank.lock_below(33), Err(ErrorCode::InvalidIndex));
        bank.lock_below(32).unwrap();
        assert_eq!(bank.locked().count(), 32);
    }
}
