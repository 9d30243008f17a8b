//! `cloister-enclave`: PID 1 of an enclave, and its data plane. See the library's page.

use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

use cloister_dataplane::server::{InEnclave, run_in_enclave};
use cloister_init::data_plane::DataPlaneOptions;
use cloister_init::error::{Doing, InitError};
use cloister_init::options::Profile;
use cloister_init::{boot, console, sys};
use cloister_transport::EnclaveEndpoints;
use cloister_wire::config::{EnclaveConfig, MAX_CONFIG_BYTES};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    cloister_init::run(std::env::args_os(), data_plane)
}

fn data_plane(options: &DataPlaneOptions) -> ExitCode {
    match configuration(options).and_then(|config| run(options, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::say(&format!("data plane: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what happens on the console, which is the host's: no secret and no plaintext. A debug enclave
/// says more, in the span of the request that it is about.
fn log(is_debug: bool) {
    let data_plane = if is_debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    let targets = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("cloister_dataplane", data_plane);
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(layer)
        .with(targets)
        .init();
}

fn configuration(options: &DataPlaneOptions) -> Result<EnclaveConfig, InitError> {
    let config = sys::inherited(options.config_fd).doing("configuration")?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_CONFIG_BYTES).unwrap_or(u64::MAX);
    File::from(config)
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .doing("cannot read the configuration")?;
    EnclaveConfig::from_json(&bytes).doing("configuration")
}

fn run(options: &DataPlaneOptions, config: EnclaveConfig) -> Result<(), InitError> {
    log(config.debug);
    let inside = InEnclave {
        config,
        endpoints: match &options.profile {
            Profile::Machine => EnclaveEndpoints::vsock(),
            Profile::Sandbox(folder) => EnclaveEndpoints::sandbox(folder),
        },
        nsm: boot::nsm(&options.profile)?,
        control_fd: sys::inherited(options.control_fd).doing("control channel")?,
        is_health_told: options.is_health_told,
    };
    run_in_enclave(inside).map_err(|error| InitError(with_sources(&error)))
}

/// An error and what caused it, in one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
