//! Seeds the kernel's random number generator from the NSM, before anything makes a key.

use std::fs::OpenOptions;
use std::io::Write;

use cloister_nsm::NsmProvider;

use crate::error::{Doing, InitError};
use crate::sys;

/// How much is asked for, in bytes: one answer of `GetRandom`.
pub const SEED_BYTES: usize = 256;

/// What became of the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeded {
    /// Mixed in and credited.
    Credited,
    /// Mixed in; the system does not let us credit it (a user namespace).
    Mixed,
}

/// Seeds the generator.
///
/// # Errors
///
/// The NSM does not answer, or `/dev/urandom` cannot be written.
pub fn seed(nsm: &dyn NsmProvider) -> Result<Seeded, InitError> {
    let mut seed = [0; SEED_BYTES];
    nsm.random(&mut seed).doing("entropy of the NSM")?;
    let mut device = OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .doing("cannot open /dev/urandom")?;
    if sys::credit_entropy(&device, &seed).is_ok() {
        return Ok(Seeded::Credited);
    }
    device.write_all(&seed).doing("cannot write /dev/urandom")?;
    Ok(Seeded::Mixed)
}
