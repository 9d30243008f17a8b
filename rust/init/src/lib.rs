//! `cloister-enclave`, the part that is PID 1: boot, supervision, and the confinement of the user
//! process.
//!
//! Init brings the machine (or the sandbox) up, starts the data plane as a process of its own by a
//! descriptor of itself, and starts the user process when the data plane says that its secrets are
//! there. It stays single-threaded and knows neither TLS nor secrets beyond the environment that it
//! hands on.
//!
//! Its transport comes from its arguments and from nothing else ([`options`]): on Nitro the command
//! line is measured, and a missing device must never turn an enclave into something else.
//!
//! What it runs is measured ([`cloister_wire::config`]); the user process is trusted with plaintext
//! and with nothing else ([`user`]). Both profiles, Nitro and sandbox, confine it the same way.

pub mod backoff;
pub mod boot;
pub mod channel;
pub mod console;
pub mod data_plane;
pub mod entropy;
pub mod error;
pub mod health_check;
pub mod heartbeat;
pub mod loopback;
pub mod modules;
pub mod mounts;
pub mod options;
pub mod output;
pub mod supervisor;
pub mod sys;
pub mod user;
pub mod volumes;

use std::process::ExitCode;

use crate::data_plane::DataPlaneOptions;
use crate::options::Options;

/// Runs what the arguments ask for: PID 1, or `data_plane` in the process that PID 1 made for it.
pub fn run(
    arguments: impl Iterator<Item = std::ffi::OsString>,
    data_plane: impl FnOnce(&DataPlaneOptions) -> ExitCode,
) -> ExitCode {
    match options::parse(arguments) {
        Ok(Options::Init(profile)) => boot::run(&profile),
        Ok(Options::DataPlane(options)) => {
            sys::forbid_dumps();
            data_plane(&options)
        }
        Err(error) => {
            console::say(&format!("arguments: {error}"));
            ExitCode::FAILURE
        }
    }
}
