//! What the launcher is told (descriptor 3) and what it says (descriptor 4), as JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Kind, SandboxError};

/// Largest specification read, in bytes.
pub const MAX_SPEC_BYTES: u64 = 1 << 20;
/// From the first request to stop until the enclave is killed, when the specification says nothing:
/// a little more than the default `drain_timeout` of 30 s.
pub const DEFAULT_GRACE_MS: u64 = 40_000;

/// What is to be started.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The image.
    pub eif: PathBuf,
    /// Folder of this run, with `v/` for the sockets in it; removed at the end.
    pub run_dir: PathBuf,
    /// Folder of the development root: `nsm-root.key` and `nsm-root.pem`, made when absent.
    pub dev_ca_dir: PathBuf,
    /// Memory of the enclave, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processors of the enclave.
    pub cpus: Option<u32>,
    /// `module_id` of the attestation documents.
    pub module_id: String,
    /// Debug enclave: PCR0, PCR1 and PCR2 are zero.
    pub debug: bool,
    /// From the first request to stop until the enclave is killed, in milliseconds.
    pub grace_ms: Option<u64>,
}

impl Spec {
    /// Reads a specification to its end and checks it.
    ///
    /// # Errors
    ///
    /// Longer than [`MAX_SPEC_BYTES`], not this JSON, a relative path, or an empty `module_id`.
    pub fn read(source: impl Read) -> Result<Self, SandboxError> {
        let mut bytes = Vec::new();
        source
            .take(MAX_SPEC_BYTES.saturating_add(1))
            .read_to_end(&mut bytes)
            .doing(|| "cannot read the specification on descriptor 3".into())?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_SPEC_BYTES) {
            return Err(SandboxError::new(format!(
                "the specification is longer than {MAX_SPEC_BYTES} bytes"
            )));
        }
        let spec: Self = serde_json::from_slice(&bytes).doing(|| "specification".into())?;
        for (name, path) in [
            ("eif", &spec.eif),
            ("run_dir", &spec.run_dir),
            ("dev_ca_dir", &spec.dev_ca_dir),
        ] {
            if !path.is_absolute() {
                return Err(SandboxError::new(format!(
                    "specification: `{name}` must be an absolute path"
                )));
            }
        }
        if spec.module_id.is_empty() {
            return Err(SandboxError::new("specification: `module_id` is empty"));
        }
        if spec.memory_bytes == Some(0) || spec.cpus == Some(0) {
            return Err(SandboxError::new(
                "specification: `memory_bytes` and `cpus` must not be zero",
            ));
        }
        Ok(spec)
    }
}

/// One line of status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The enclave ended.
    Exited {
        /// Exit code of its init, when it exited.
        code: Option<i32>,
        /// Signal, when it was killed.
        signal: Option<i32>,
    },
    /// It could not be started.
    Failed {
        /// Whose doing it is.
        kind: Kind,
        /// What was expected and what was found.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Its init runs.
    Started {
        /// PCRs that are not zero (all three of PCR0–2 in any case), hexadecimal.
        pcrs: BTreeMap<String, String>,
        /// Process id of its init, in the launcher's namespace.
        init_pid: i32,
    },
}

/// The status channel. A reader that is gone is noticed elsewhere: failing to write is no error.
#[derive(Debug)]
pub struct Status {
    file: File,
}

impl Status {
    /// Writes to `file`.
    pub fn new(file: File) -> Self {
        Self { file }
    }

    /// The descriptor, to notice that its reader is gone.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Says `event`.
    pub fn say(&mut self, event: &Event) {
        if let Ok(mut line) = serde_json::to_vec(event) {
            line.push(b'\n');
            let _ = self.file.write_all(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(replace: &str, with: &str) -> Result<Spec, SandboxError> {
        let whole = r#"{"eif":"/e","run_dir":"/r","dev_ca_dir":"/d","memory_bytes":null,"cpus":2,"module_id":"i-1","debug":false}"#;
        Spec::read(whole.replace(replace, with).as_bytes())
    }

    #[test]
    fn a_specification_is_read() {
        let spec = spec("", "").unwrap();
        assert_eq!((spec.cpus, spec.memory_bytes), (Some(2), None));
    }

    #[test]
    fn a_misspelt_key_or_a_relative_path_is_refused() {
        spec("\"debug\"", "\"debuk\"").unwrap_err();
        let error = spec("\"/r\"", "\"r\"").unwrap_err();
        assert!(error.message.contains("`run_dir`"), "{error}");
        spec(":2", ":0").unwrap_err();
    }

    #[test]
    fn the_status_lines_are_those_of_the_contract() {
        let line = serde_json::to_string(&Event::Exited {
            code: Some(0),
            signal: None,
        });
        assert_eq!(
            line.unwrap(),
            r#"{"event":"exited","code":0,"signal":null}"#
        );
    }
}
