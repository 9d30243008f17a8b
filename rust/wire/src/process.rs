//! What runs: `/cloister/process.json`, as the final image's configuration says.
//!
//! Written by `cloister build` from ENTRYPOINT, CMD, ENV, WORKDIR, USER, STOPSIGNAL, VOLUME and
//! HEALTHCHECK, measured, and read once, at boot, by init. An unknown key, or a value that init could
//! not honor exactly, refuses the boot. Times are milliseconds.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::MAX_CONFIG_BYTES;

/// Highest signal number of Linux (`_NSIG`, signal(7)).
pub const MAX_SIGNAL: i32 = 64;
/// Most volumes of one image.
pub const MAX_VOLUMES: usize = 64;
/// Folders of the kernel: a volume there would be covered at once.
const KERNEL_FOLDERS: [&str; 3] = ["dev", "proc", "sys"];

/// Why `process.json` refuses the boot.
#[non_exhaustive]
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProcessError {
    /// Not JSON, an unknown or missing key, or a value of another type.
    #[error("process configuration: {0}")]
    Malformed(String),
    /// A process or a health check without a command.
    #[error("process configuration has no command: `{field}` is empty")]
    NoCommand {
        /// Where.
        field: &'static str,
    },
    /// A value that cannot be honored.
    #[error("process configuration: `{field}` {problem}")]
    OutOfRange {
        /// Where.
        field: &'static str,
        /// What is wrong with it, as a verb phrase.
        problem: &'static str,
    },
    /// Longer than [`MAX_CONFIG_BYTES`].
    #[error("process configuration is {length} bytes long, the limit is {MAX_CONFIG_BYTES}")]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
}

/// `/cloister/process.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessConfig {
    /// ENTRYPOINT and CMD as Docker joins them; never empty.
    pub argv: Vec<String>,
    /// ENV, in order.
    pub env: Vec<(String, String)>,
    /// WORKDIR, absolute.
    pub cwd: String,
    /// USER as written: empty, `name`, `uid`, `name:group`, `uid:gid`.
    pub user: String,
    /// Additional group ids.
    pub groups: Vec<u32>,
    /// STOPSIGNAL as a number.
    pub stop_signal: i32,
    /// VOLUME: absolute paths without `.`, `..` and double slashes, sorted, each once. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// HEALTHCHECK, when it decides. Absent: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<CommandCheck>,
}

/// HEALTHCHECK: a command that says whether the user process is well. Nothing has a default here: the
/// builder writes Docker's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandCheck {
    /// What is run; exit code 0 is well.
    pub argv: Vec<String>,
    /// From the end of one run to the start of the next.
    pub interval_ms: u32,
    /// A run that takes longer has failed and is killed.
    pub timeout_ms: u32,
    /// Failures do not count in this time after the start.
    pub start_period_ms: u32,
    /// The interval within the start period.
    pub start_interval_ms: u32,
    /// Failures in a row until the process is not healthy.
    pub retries: u32,
}

impl ProcessConfig {
    /// Reads `/cloister/process.json`.
    ///
    /// # Errors
    ///
    /// In this order: [`ProcessError::TooLong`], [`ProcessError::Malformed`],
    /// [`ProcessError::NoCommand`], [`ProcessError::OutOfRange`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ProcessError> {
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(ProcessError::TooLong {
                length: bytes.len(),
            });
        }
        let process: Self = serde_json::from_slice(bytes)
            .map_err(|error| ProcessError::Malformed(error.to_string()))?;
        process.check()?;
        Ok(process)
    }

    fn check(&self) -> Result<(), ProcessError> {
        command(&self.argv, "argv")?;
        let refuse = |field, problem| Err(ProcessError::OutOfRange { field, problem });
        if !self.cwd.starts_with('/') || self.cwd.contains('\0') {
            return refuse("cwd", "is not an absolute path");
        }
        if !(1..=MAX_SIGNAL).contains(&self.stop_signal) {
            return refuse("stop_signal", "is not between 1 and 64");
        }
        if self.volumes.len() > MAX_VOLUMES {
            return refuse("volumes", "names more than 64");
        }
        if !self.volumes.is_sorted_by(|one, next| one < next) {
            return refuse("volumes", "is not sorted, or names one twice");
        }
        if !self.volumes.iter().all(|path| is_volume(path)) {
            return refuse("volumes", "has a path that no volume can be at");
        }
        self.healthcheck
            .as_ref()
            .map_or(Ok(()), CommandCheck::check)
    }
}

impl CommandCheck {
    fn check(&self) -> Result<(), ProcessError> {
        command(&self.argv, "healthcheck.argv")?;
        for (field, value) in [
            ("healthcheck.interval_ms", self.interval_ms),
            ("healthcheck.timeout_ms", self.timeout_ms),
            ("healthcheck.start_interval_ms", self.start_interval_ms),
            ("healthcheck.retries", self.retries),
        ] {
            if value == 0 {
                let problem = "is 0";
                return Err(ProcessError::OutOfRange { field, problem });
            }
        }
        Ok(())
    }
}

fn command(argv: &[String], field: &'static str) -> Result<(), ProcessError> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(ProcessError::NoCommand { field });
    }
    if argv.iter().any(|word| word.contains('\0')) {
        let problem = "has a zero byte";
        return Err(ProcessError::OutOfRange { field, problem });
    }
    Ok(())
}

fn is_volume(path: &str) -> bool {
    let Some(inner) = path.strip_prefix('/') else {
        return false;
    };
    let mut parts = inner.split('/');
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    inner.split('/').all(is_plain)
        && parts
            .next()
            .is_some_and(|first| !KERNEL_FOLDERS.contains(&first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn whole() -> Value {
        json!({
            "argv": ["/app"], "env": [["A", "b"]], "cwd": "/", "user": "", "groups": [],
            "stop_signal": 15, "volumes": ["/data", "/data/inner"],
            "healthcheck": {
                "argv": ["/check", "-q"], "interval_ms": 30_000, "timeout_ms": 30_000,
                "start_period_ms": 0, "start_interval_ms": 5_000, "retries": 3,
            },
        })
    }

    fn read(value: &Value) -> Result<ProcessConfig, ProcessError> {
        ProcessConfig::from_json(&serde_json::to_vec(value).unwrap())
    }

    #[test]
    fn what_is_read_is_written_back_unchanged() {
        let process = read(&whole()).unwrap();
        assert_eq!(serde_json::to_value(&process).unwrap(), whole());
    }

    #[test]
    fn volumes_and_a_health_check_may_be_absent_and_nothing_else() {
        for key in whole().as_object().unwrap().keys() {
            let mut less = whole();
            less.as_object_mut().unwrap().remove(key);
            let may = ["volumes", "healthcheck"].contains(&key.as_str());
            assert_eq!(read(&less).is_ok(), may, "{key}");
        }
        for key in whole()["healthcheck"].as_object().unwrap().keys() {
            let mut less = whole();
            less["healthcheck"].as_object_mut().unwrap().remove(key);
            read(&less).unwrap_err();
        }
    }

    #[test]
    fn an_unknown_key_refuses_the_boot_at_either_depth() {
        let mut more = whole();
        more["surprise"] = 1.into();
        assert!(matches!(read(&more), Err(ProcessError::Malformed(_))));
        let mut more = whole();
        more["healthcheck"]["surprise"] = 1.into();
        assert!(matches!(read(&more), Err(ProcessError::Malformed(_))));
    }

    #[test]
    fn a_command_is_never_empty() {
        for empty in [json!([]), json!([""]), json!(["", "x"])] {
            let mut none = whole();
            none["argv"] = empty.clone();
            assert_eq!(read(&none), Err(ProcessError::NoCommand { field: "argv" }));
            let mut none = whole();
            none["healthcheck"]["argv"] = empty;
            let field = "healthcheck.argv";
            assert_eq!(read(&none), Err(ProcessError::NoCommand { field }));
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let refused = |pointer: &str, value: Value| {
            let mut other = whole();
            *other.pointer_mut(pointer).unwrap() = value;
            match read(&other) {
                Err(ProcessError::OutOfRange { field, .. }) => field,
                other => panic!("{pointer}: {other:?}"),
            }
        };
        assert_eq!(refused("/argv", json!(["a\0b"])), "argv");
        assert_eq!(refused("/cwd", json!("srv")), "cwd");
        assert_eq!(refused("/stop_signal", json!(0)), "stop_signal");
        assert_eq!(refused("/stop_signal", json!(65)), "stop_signal");
        for key in ["interval_ms", "timeout_ms", "start_interval_ms", "retries"] {
            let field = refused(&format!("/healthcheck/{key}"), json!(0));
            assert_eq!(field, format!("healthcheck.{key}"));
        }
        for path in [
            "data", "/", "", "/a/", "/a//b", "/a/../b", "/./a", "/proc", "/proc/x", "/dev/shm",
            "/sys",
        ] {
            assert_eq!(refused("/volumes", json!([path])), "volumes", "{path}");
        }
        assert_eq!(refused("/volumes", json!(["/b", "/a"])), "volumes");
        assert_eq!(refused("/volumes", json!(["/a", "/a"])), "volumes");
        let many: Vec<_> = (100..165).map(|number| format!("/{number}")).collect();
        assert_eq!(refused("/volumes", json!(many)), "volumes");
        let mut most = whole();
        most["volumes"] = json!(many[1..]);
        read(&most).unwrap();
    }

    /// Milliseconds are bounded by their type: an end of a wait is always a time.
    #[test]
    fn a_time_beyond_its_type_is_refused() {
        let mut long = whole();
        long["healthcheck"]["interval_ms"] = json!(u64::from(u32::MAX));
        read(&long).unwrap();
        long["healthcheck"]["interval_ms"] = json!(u64::from(u32::MAX) + 1);
        assert!(matches!(read(&long), Err(ProcessError::Malformed(_))));
    }

    #[test]
    fn the_limit_stands_before_the_parser() {
        let mut long = serde_json::to_vec(&whole()).unwrap();
        long.resize(MAX_CONFIG_BYTES + 1, b' ');
        let length = MAX_CONFIG_BYTES + 1;
        assert_eq!(
            ProcessConfig::from_json(&long),
            Err(ProcessError::TooLong { length })
        );
        long.truncate(MAX_CONFIG_BYTES);
        ProcessConfig::from_json(&long).unwrap();
    }
}
