//! Verifies attestation documents with Rust alone: `cloister-attestation` without its default backend,
//! and P-384 of `RustCrypto` in its place.
//!
//! It speaks the contract of `tests/conformance/attestation` (one case a line in, one verdict a line out):
//!
//! ```text
//! python tests/conformance/attestation --subject target/debug/portable-verifier
//! ```
//!
//! Nothing here or below is C, or needs an operating system but for standard input and output: what a
//! build for `wasm32-unknown-unknown` asks for. There the lines are the argument of an exported function.
//! The price is time: a document takes four to five times as long as with AWS-LC.

#![forbid(unsafe_code)]

mod case;
mod rust_crypto;

use std::io::{self, BufRead as _, Write as _};

use cloister_attestation::Remembering;

use crate::rust_crypto::RustCrypto;

fn main() -> io::Result<()> {
    // Whether a signature is good never changes, so most cases cost one verification or none.
    let verifier = Remembering::new(RustCrypto);
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        writeln!(out, "{}", case::verdict(&line?, &verifier)?)?;
    }
    Ok(())
}
