//! `ev:` ciphertexts and encrypted files: grammar, keys, sealing, opening, and the scanner that finds
//! them in a body.
//!
//! The format is Evervault's (see the ciphertext specification in the documentation), so what its public SDKs
//! encrypt with one of our app keys opens here, and the reverse. This crate does no I/O, reads no
//! clock and has no randomness of its own. It opens every version of tokens, and files of the two
//! that never used a nonce twice; what it writes is on P-256.
//!
//! What it trusts: the app keys it is given. Tokens come from anybody who has the app's public key,
//! so a token that opens says nothing about who made it: its clear text is checked against its type
//! and escaped for the place where it stands.

#![forbid(unsafe_code)]

mod additional;
mod boundary;
mod curve;
mod decode;
mod file;
mod gcm;
mod kdf;
mod key_cache;
mod keys;
mod metadata;
mod open;
mod place;
mod random;
mod room;
pub mod scan;
mod seal;
mod seal_file;
mod seal_json;
mod secp256k1;
mod token;
mod version;

pub use boundary::Boundary;
pub use curve::Curve;
pub use file::FILE_OVERHEAD_BYTES;
pub use key_cache::{KEY_LIFE, KeyCache, MAX_CACHED_KEYS};
pub use keys::{AppPrivateKey, AppPublicKey, KeyError, Keyring, MAX_KEYS, Secp256k1PrivateKey};
pub use open::{
    OpenCounts, OpenError, OpenPolicy, OpenSession, Opened, open_file, open_header_value,
};
pub use place::{Place, place_for};
pub use random::{Random, RandomError};
pub use room::{PIECE_BYTES, grow, make_room, room_for, wipe};
pub use scan::{
    ScanError, ScanLimits, ScanSummary, Scanner, Spliced, may_contain_token, may_need_scan,
    open_json,
};
pub use seal::{SealError, SealOptions, seal, seal_values};
pub use seal_file::{FileSealer, MAX_SEALED_FILE_BYTES, seal_file};
pub use seal_json::{MAX_DEPTH, check_json, line_and_column, seal_json, seal_json_within};
pub use token::Token;
pub use version::{ValueType, Version};
