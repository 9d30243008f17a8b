//! `bench-plane OPTIONS.json`: the data plane without an enclave as a program of its own, built with
//! the flags of the enclave's binary.
//!
//! The benchmarks measure it instead of the Python extension: what runs in production is static,
//! optimized across crates, and has no interpreter beside it. It serves until it is killed.

use std::error::Error;

use cloister_devplane::{DevApiKey, DevOptions, DevPlane, LogOutput};
use serde::Deserialize;

/// What the harness chooses.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The attested configuration, as in `/cloister/config.json`.
    config: serde_json::Value,
    /// Where clients connect.
    listen: String,
    /// Where the application listens.
    upstream: String,
    /// PEM files: chain and key.
    certificate: [String; 2],
    /// The key that clients present.
    api_key: String,
    /// Threads that serve.
    workers: usize,
    /// Where transaction logs are appended; without it they are dropped after they were sent.
    logs: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("usage: bench-plane OPTIONS.json")?;
    let options: Options = serde_json::from_slice(&std::fs::read(path)?)?;
    let [certificate, key] = options.certificate;
    let mut dev = DevOptions::new(
        options.config.to_string().into_bytes(),
        options.listen.parse()?,
        options.upstream.parse()?,
    );
    dev.certificate = Some((std::fs::read(certificate)?, std::fs::read(key)?));
    dev.api_keys = vec![DevApiKey {
        value: options.api_key,
        scopes: vec!["app".to_owned()],
        not_after_ms: None,
    }];
    dev.workers = options.workers;
    dev.logs = options
        .logs
        .map_or(LogOutput::Dropped, |path| LogOutput::File(path.into()));
    let _plane = DevPlane::start(dev)?;
    loop {
        std::thread::park();
    }
}
