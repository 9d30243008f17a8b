//! The operating system's random source, seeded from the NSM by init.

use aws_lc_rs::rand::{SecureRandom, SystemRandom as Source};
use cloister_ciphertext::{Random, RandomError};

/// Random bytes of the process's cryptographic library.
#[derive(Debug)]
pub struct SystemRandom(Source);

impl SystemRandom {
    /// A source.
    pub fn new() -> Self {
        Self(Source::new())
    }
}

impl Default for SystemRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        self.0.fill(bytes).map_err(|_| RandomError)
    }
}
