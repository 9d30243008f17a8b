//! The data plane: TLS, HTTP, attestation, logs, authentication and decryption in front of the user
//! process, and everything that keeps it supplied.
//!
//! Two halves meet in a few values. The *engine* moves requests and reads, without a lock, what is
//! true at the moment: [`live::Live`], [`certificate::Certificates`], [`documents::Documents`]. The
//! *services* keep those true: provisioning, certificates, logs, health, the internal API. One
//! file assembles both. It runs in the enclave, and outside of one for `cloister dev`; what differs
//! is the NSM, the agent and the addresses, all of them arguments.

pub mod agent;
pub mod backoff;
pub mod certificate;
pub mod clock;
pub mod control;
pub mod documents;
mod engine;
pub mod health;
mod held;
pub mod internal_api;
pub mod live;
pub mod log_ring;
pub mod log_shipper;
pub mod nsm_thread;
pub mod objects;
pub mod provision;
pub mod server;
mod small_http;
#[cfg(test)]
mod test_support;
mod wiped;
