//! The engine as a black box: real TLS and raw bytes on one side, a scripted user process on the
//! other. Each test looks at the answer and at what the user process received. Names begin with the
//! threat they are about.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that goes wrong stops"
)]

mod answers;
mod attestation;
mod certificates;
mod ciphertexts;
mod client;
mod flood;
mod forwarding;
mod handshakes;
mod keys;
mod limits;
mod plane;
mod pool;
mod process;
mod raw;
mod raw_passthrough;
mod smuggling;
mod websocket;
