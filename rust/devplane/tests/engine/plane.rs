//! A data plane between a client and a scripted user process.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cloister_devplane::{DevError, DevOptions, DevPlane};
use cloister_transport::Address;
use serde_json::{Value, json};

use crate::client::Client;
use crate::process::Process;

const CONFIG: &str = include_str!("../../../../tests/vectors/config/enclave.json");

/// A data plane that runs, and the process behind it.
pub(crate) struct Site {
    pub(crate) plane: DevPlane,
    pub(crate) process: Process,
}

/// What a test changes.
#[derive(Default)]
pub(crate) struct Changes {
    /// Merged into the configuration, objects key by key.
    pub(crate) config: Value,
    pub(crate) proxy_protocol: bool,
    pub(crate) logs: Option<std::path::PathBuf>,
    pub(crate) bundle_life: Option<Duration>,
    pub(crate) certificate_life: Option<Duration>,
}

impl Site {
    /// A site as `init` configures it, without API keys, before `process`.
    pub(crate) fn open(process: Process) -> Self {
        Self::with(process, json!({ "api_key_auth": false }))
    }

    pub(crate) fn with(process: Process, config: Value) -> Self {
        Self::changed(
            process,
            Changes {
                config,
                ..Changes::default()
            },
        )
    }

    pub(crate) fn changed(process: Process, changes: Changes) -> Self {
        Self {
            plane: start(process.address, changes).unwrap(),
            process,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        address(&self.plane)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self, b"")
    }

    /// The API key that lets in.
    pub(crate) fn key(&self) -> &str {
        &self.plane.api_keys()[0]
    }
}

/// A data plane before a process that listens at `process`.
pub(crate) fn start(process: SocketAddr, changes: Changes) -> Result<DevPlane, DevError> {
    let mut config: Value = serde_json::from_str(CONFIG).unwrap();
    merge(&mut config, changes.config);
    if config["service"]["protocol"] == "tcp" || config["tls"]["termination"] == false {
        // A GET is nothing that such a process would answer.
        config["healthcheck"] = Value::Null;
    }
    let config = config.to_string().into_bytes();
    let mut options = DevOptions::new(config, local(), tcp(process));
    options.proxy_protocol = changes.proxy_protocol;
    if let Some(life) = changes.bundle_life {
        options.bundle_life = life;
    }
    if let Some(life) = changes.certificate_life {
        options.certificate_life = life;
    }
    if let Some(path) = changes.logs {
        options.logs = cloister_devplane::LogOutput::File(path);
    }
    DevPlane::start(options)
}

/// Where clients connect.
pub(crate) fn address(plane: &DevPlane) -> SocketAddr {
    let Address::Tcp { host, port } = plane.address() else {
        panic!("not TCP")
    };
    SocketAddr::new(host.parse().unwrap(), *port)
}

/// Waits until `is_so`; a state that never comes is a failure.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (_, Value::Null) => {}
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(
                    into.get_mut(&key).expect("a key of the configuration"),
                    value,
                );
            }
        }
        (into, from) => *into = from,
    }
}

fn local() -> Address {
    Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 0,
    }
}

fn tcp(address: SocketAddr) -> Address {
    Address::Tcp {
        host: address.ip().to_string(),
        port: address.port(),
    }
}
