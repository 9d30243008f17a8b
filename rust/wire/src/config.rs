//! The attested configuration: `/cloister/config.json`. What runs is in [`crate::process`].
//!
//! The file is written by `cloister build`, lies in the measured application ramdisk, and is
//! read once, at boot. Because it is measured it is believed; because a measured mistake is
//! still a mistake, an unknown key or a value out of range refuses the boot instead of being
//! ignored. Byte counts are bytes, times are milliseconds.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Version of the configuration format this program reads.
pub const VERSION: u32 = 1;
/// Largest configuration file read, in bytes.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;
/// Most service keys a configuration may name.
pub const MAX_SERVICE_KEYS: usize = 3;

/// Why an attested configuration refuses the boot.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Settings that contradict each other.
    #[error("attested configuration: {0}")]
    Conflict(&'static str),
    /// Not JSON, an unknown or missing key, or a value of another type.
    #[error("attested configuration: {0}")]
    Malformed(#[from] serde_json::Error),
    /// No service key, or more than [`MAX_SERVICE_KEYS`].
    #[error("attested configuration names {count} service keys, expected 1 to 3")]
    ServiceKeys {
        /// How many there are.
        count: usize,
    },
    /// Longer than [`MAX_CONFIG_BYTES`].
    #[error("attested configuration is {length} bytes long, the limit is {MAX_CONFIG_BYTES}")]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// Written for another version of this program.
    #[error("attested configuration has version {version}, this program reads version {VERSION}")]
    Version {
        /// Its version.
        version: u32,
    },
}

/// `/cloister/config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnclaveConfig {
    /// Format version, [`VERSION`].
    pub version: u32,
    /// DNS label of the enclave.
    pub name: String,
    /// Identity of the enclave.
    pub uuid: Uuid,
    /// Identity of its app.
    pub app_uuid: Uuid,
    /// Identity of its team.
    pub team_uuid: Uuid,
    /// Debug enclave: PCR0–2 are zero and the console is open.
    pub debug: bool,
    /// Whether a request needs a valid `api-key`.
    pub api_key_auth: bool,
    /// Whether the `api-key` header is passed on to the user process.
    pub forward_api_key: bool,
    /// Whether the PROXY header is replayed to the user process (TLS passthrough only).
    pub forward_proxy_protocol: bool,
    /// Where and how the user process listens.
    pub service: Service,
    /// What may leave.
    pub egress: Egress,
    /// Health check of the user process; none: HEALTHCHECK of the image decides, or else its port
    /// must accept.
    pub healthcheck: Option<Healthcheck>,
    /// Connection and handshake bounds.
    pub acceptor: Acceptor,
    /// Every other bound.
    pub limits: Limits,
    /// Transaction logs.
    pub logs: Logs,
    /// TLS in the enclave.
    pub tls: Tls,
    /// Environment of the user process.
    pub env: Env,
    /// CORS of the attestation endpoint.
    pub attestation_cors: Cors,
    /// Whose bundles are believed.
    pub trust: Trust,
}

impl EnclaveConfig {
    /// Reads `/cloister/config.json`.
    ///
    /// # Errors
    ///
    /// In this order: [`ConfigError::TooLong`], [`ConfigError::Malformed`], [`ConfigError::Version`],
    /// [`ConfigError::ServiceKeys`], [`ConfigError::Conflict`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        bounded(bytes)?;
        let config: Self = serde_json::from_slice(bytes)?;
        if config.version != VERSION {
            return Err(ConfigError::Version {
                version: config.version,
            });
        }
        let count = config.trust.service_keys.len();
        if count == 0 || count > MAX_SERVICE_KEYS {
            return Err(ConfigError::ServiceKeys { count });
        }
        config.handling()?;
        Ok(config)
    }

    /// What is done with a connection.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Conflict`]: a layer is asked for that could not be there.
    pub fn handling(&self) -> Result<Handling, ConfigError> {
        let conflict = |is_one: bool, what| {
            if is_one {
                Err(ConfigError::Conflict(what))
            } else {
                Ok(())
            }
        };
        if !self.tls.termination {
            conflict(self.api_key_auth, KEYS_NEED_TLS)?;
            conflict(self.logs.trx_logging, LOGS_NEED_TLS)?;
            return Ok(Handling::Passthrough {
                replays_header: self.forward_proxy_protocol,
            });
        }
        conflict(self.forward_proxy_protocol, HEADER_NEEDS_PASSTHROUGH)?;
        if self.service.protocol == Protocol::Tcp {
            conflict(self.api_key_auth, KEYS_NEED_HTTP)?;
            return Ok(Handling::Tcp);
        }
        Ok(Handling::Http)
    }
}

/// What is done with a connection. Several settings say it, and have to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// TLS ends in the enclave, and requests go through every layer.
    Http,
    /// Bytes pass to the user process untouched; TLS is its own matter.
    Passthrough {
        /// Whether the PROXY header is passed on in front of them.
        replays_header: bool,
    },
    /// TLS ends in the enclave, and what is inside passes to the user process.
    Tcp,
}

const KEYS_NEED_TLS: &str = "`api_key_auth` cannot be kept without `tls.termination`";
const LOGS_NEED_TLS: &str = "`logs.trx_logging` has nothing to write without `tls.termination`";
const HEADER_NEEDS_PASSTHROUGH: &str =
    "`forward_proxy_protocol` is for enclaves without `tls.termination`";
const KEYS_NEED_HTTP: &str = "`api_key_auth` cannot be kept with `service.protocol` tcp";

fn bounded(bytes: &[u8]) -> Result<(), ConfigError> {
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLong {
            length: bytes.len(),
        });
    }
    Ok(())
}

/// Where and how the user process listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// TCP port on the enclave's loopback.
    pub port: u16,
    /// Protocol spoken to it.
    pub protocol: Protocol,
}

/// Protocol spoken to the user process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/2 with prior knowledge, in clear.
    H2c,
    /// HTTP/1.1.
    Http1,
    /// Bytes.
    Tcp,
}

/// What may leave the enclave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Whether anything may.
    pub enabled: bool,
    /// Allow-list entries; grammar in data-plane documentation.
    pub destinations: Vec<String>,
    /// Whether the host may connect to addresses that are not global.
    pub allow_private: bool,
}

/// Health check of the user process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healthcheck {
    /// Path asked with GET.
    pub path: String,
    /// Port asked; the service port when absent.
    pub port: Option<u16>,
}

/// Connection and handshake bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptor {
    /// Connections open at once.
    pub max_concurrent_connections: u32,
    /// TLS handshakes under way at once.
    pub max_concurrent_handshakes: u32,
    /// From accept to Finished, in milliseconds.
    pub handshake_timeout: u64,
}

/// Every other bound. Bytes for sizes, milliseconds for times, `None` for no bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Request head, bytes (431).
    pub head: u64,
    /// Header lines (431).
    pub headers: u32,
    /// Request target, bytes (414).
    pub target: u64,
    /// Extension of one chunk of a body, bytes (400).
    pub chunk_extension: u64,
    /// Trailer section of a body, bytes (400).
    pub trailers: u64,
    /// Request body, bytes (413).
    pub max_body: Option<u64>,
    /// From the first byte of a head to its end, ms (408).
    pub head_timeout: u64,
    /// Between two reads or writes of a body, ms (408).
    pub body_idle: u64,
    /// Idle between two requests, ms.
    pub keepalive_idle: u64,
    /// Requests on one connection; `None`: any number.
    pub keepalive_requests: Option<u32>,
    /// Reading on after the last answer of a connection, ms.
    pub linger: u64,
    /// Without a byte either way in a WebSocket or TCP session, ms.
    pub tunnel_idle: Option<u64>,
    /// Connecting to the user process, ms (502/504).
    pub upstream_connect: u64,
    /// A connection to the user process that nobody uses, ms.
    pub upstream_idle: u64,
    /// Such connections, all workers together.
    pub upstream_idle_connections: u32,
    /// Until the user process's response head is there, ms (504).
    pub upstream_response: u64,
    /// Interim responses (1xx) of the user process before the final one (502).
    pub interim_responses: u32,
    /// HTTP/2 concurrent streams.
    pub h2_streams: u32,
    /// HTTP/2 requests that a client takes back within 10 s before they are answered.
    pub h2_resets: u32,
    /// Body opened whole before anything is forwarded, bytes.
    pub decrypt_buffer: u64,
    /// Processor time of each worker that new ephemeral keys may take, per cent (503).
    pub decrypt_cpu: u8,
    /// One `ev:` token, bytes (422).
    pub max_token: u64,
    /// One encrypted file, bytes.
    pub max_file: u64,
    /// All held bodies together, bytes (503).
    pub held_bytes: u64,
    /// Distinct ephemeral keys in one request (422).
    pub distinct_keys_per_request: u32,
    /// Connections without a whole `ClientHello`, or whose handshake stands still.
    pub max_waiting: u32,
    /// Grace period of a drain, ms.
    pub drain_timeout: u64,
    /// Transaction logs held while the host is away, bytes.
    pub log_ring: u64,
}

/// Transaction logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Whether any are written.
    pub trx_logging: bool,
    /// Whether query strings are shown.
    pub trx_log_query: bool,
    /// Header names (`name` or `prefix-*`) whose values are shown.
    pub trusted_headers: Vec<String>,
}

/// TLS in the enclave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Whether TLS ends in the enclave.
    pub termination: bool,
    /// Names the certificate is for.
    pub domains: Vec<String>,
    /// Whether an ACME certificate is ordered for them.
    pub acme: bool,
    /// Oldest TLS version accepted.
    pub min_version: TlsVersion,
    /// Whether the TLS key is shared with other images of this enclave that say so, too. It lets an
    /// older image be served under a newer one's document.
    #[serde(default)]
    pub dangerous_share_across_deployments: bool,
}

/// Oldest TLS version accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Environment of the user process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Env {
    /// What happens to the user process after a hot update.
    pub reload: Reload,
}

/// What happens to the user process after a hot update of its environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reload {
    /// Nothing.
    None,
    /// It is restarted.
    Restart,
    /// It is sent SIGHUP.
    Sighup,
}

/// CORS of the attestation endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// `access-control-allow-origin`.
    pub origin: String,
}

/// Whose bundles are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// One to three Ed25519 public keys, 32 bytes each, standard base64 with padding.
    pub service_keys: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = include_str!("../../../tests/vectors/config/enclave.json");

    fn with(key: &str, value: serde_json::Value) -> Vec<u8> {
        let mut whole: serde_json::Value = serde_json::from_str(WHOLE).unwrap();
        whole[key] = value;
        serde_json::to_vec(&whole).unwrap()
    }

    #[test]
    fn a_whole_configuration_is_read_and_written_back_unchanged() {
        let config = EnclaveConfig::from_json(WHOLE.as_bytes()).unwrap();
        let again = serde_json::to_value(&config).unwrap();
        assert_eq!(
            again,
            serde_json::from_str::<serde_json::Value>(WHOLE).unwrap()
        );
    }

    #[test]
    fn an_unknown_key_refuses_the_boot() {
        EnclaveConfig::from_json(&with("surprise", 1.into())).unwrap_err();
        EnclaveConfig::from_json(&with("name", "other".into())).unwrap();
    }

    #[test]
    fn another_version_is_named() {
        let error = EnclaveConfig::from_json(&with("version", 2.into())).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    /// A layer that is asked for and cannot be there must not be left out quietly.
    #[test]
    fn settings_that_contradict_each_other_refuse_the_boot() {
        let judged = |keys: bool, logs: bool, tls: bool, header: bool, protocol: &str| {
            let mut whole: serde_json::Value = serde_json::from_str(WHOLE).unwrap();
            whole["api_key_auth"] = keys.into();
            whole["logs"]["trx_logging"] = logs.into();
            whole["tls"]["termination"] = tls.into();
            whole["forward_proxy_protocol"] = header.into();
            whole["service"]["protocol"] = protocol.into();
            let config = EnclaveConfig::from_json(&serde_json::to_vec(&whole).unwrap());
            config.and_then(|config| config.handling())
        };
        for protocol in ["http1", "h2c"] {
            for (keys, logs) in [(false, false), (false, true), (true, false), (true, true)] {
                let handling = judged(keys, logs, true, false, protocol);
                assert_eq!(handling.unwrap(), Handling::Http);
            }
        }
        assert_eq!(
            judged(false, true, true, false, "tcp").unwrap(),
            Handling::Tcp
        );
        for replays_header in [false, true] {
            let handling = judged(false, false, false, replays_header, "tcp").unwrap();
            assert_eq!(handling, Handling::Passthrough { replays_header });
        }
        for (keys, logs, tls, header, protocol, name) in [
            (true, true, true, false, "tcp", "service.protocol"),
            (true, false, false, false, "http1", "api_key_auth"),
            (false, true, false, false, "http1", "trx_logging"),
            (false, false, true, true, "http1", "forward_proxy_protocol"),
        ] {
            let error = judged(keys, logs, tls, header, protocol).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    /// Without a service key every bundle would have to be refused, or none.
    #[test]
    fn a_configuration_that_trusts_nobody_or_a_crowd_is_refused() {
        for count in [0, 4] {
            let keys = vec!["key"; count];
            let trust = serde_json::json!({ "service_keys": keys });
            let error = EnclaveConfig::from_json(&with("trust", trust)).unwrap_err();
            assert!(matches!(error, ConfigError::ServiceKeys { .. }), "{error}");
        }
    }

    #[test]
    fn the_limit_stands_before_the_parser() {
        let mut long = WHOLE.as_bytes().to_vec();
        long.resize(MAX_CONFIG_BYTES + 1, b' ');
        assert!(matches!(
            EnclaveConfig::from_json(&long),
            Err(ConfigError::TooLong { .. })
        ));
        long.truncate(MAX_CONFIG_BYTES);
        EnclaveConfig::from_json(&long).unwrap();
    }
}
