//! `ev:` ciphertexts: grammar, streaming scanner, seal and open.

#![forbid(unsafe_code)]

mod random;

pub use random::{Random, RandomError};
