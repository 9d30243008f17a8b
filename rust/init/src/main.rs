//! `cloister-enclave`: PID 1 of an enclave, and its data plane. See the library's page.

use std::process::ExitCode;

use cloister_init::data_plane::DataPlaneOptions;

fn main() -> ExitCode {
    cloister_init::run(std::env::args_os(), data_plane)
}

fn data_plane(_options: DataPlaneOptions) -> ExitCode {
    ExitCode::FAILURE
}
