//! `cloister-sandbox`: see the library's page. The specification comes in on descriptor 3, the
//! status goes out on descriptor 4, the console of the enclave on standard error.

use std::process::ExitCode;

fn main() -> ExitCode {
    cloister_sandbox::run::run()
}
