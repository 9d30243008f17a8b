//! Starts the user process and hears of its end: init's side of [`super::reaper`].

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use cloister_wire::config::{EnclaveConfig, ProcessConfig};
use rustix::process::{Pid, WaitStatus};

use super::environment::Environment;
use super::reaper::{self, Task};
use crate::error::{Doing, InitError};
use crate::output::Output;
use crate::sys;

/// The namespaces of the user process.
const NAMESPACES: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
/// Longest report of a reaper, in bytes.
const MAX_REPORT_BYTES: u64 = 4096;

/// What the image says runs, ready to be started again and again.
#[derive(Debug)]
pub struct UserProcess {
    process: ProcessConfig,
    hostname: String,
    is_output_shown: bool,
}

/// One run of it.
#[derive(Debug)]
pub struct Running {
    /// The reaper, PID 1 of the process's namespace.
    pub pid: Pid,
    /// What the process writes, when that is shown.
    pub output: Option<Output>,
    report: File,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Exit code, when it exited.
    pub code: Option<i32>,
    /// Signal, when it was killed.
    pub signal: Option<i32>,
    /// Why it could not be started.
    pub failure: Option<String>,
}

impl UserProcess {
    /// From the measured configuration; `is_output_shown` only in a proven debug enclave.
    pub fn new(process: ProcessConfig, config: &EnclaveConfig, is_output_shown: bool) -> Self {
        Self {
            process,
            hostname: config.name.clone(),
            is_output_shown,
        }
    }

    /// The signal that asks it to stop.
    pub fn stop_signal(&self) -> i32 {
        match self.process.stop_signal {
            signal @ 1..=64 => signal,
            _ => libc::SIGTERM,
        }
    }

    /// Starts it with `bundle` (values in base64) over the image's ENV.
    ///
    /// # Errors
    ///
    /// A variable cannot be in an environment, or the system has no room for another process.
    pub fn start(&self, bundle: &[(String, String)]) -> Result<Running, InitError> {
        let environment = Environment::merge(&self.process.env, bundle)?;
        let (report, report_end) = io::pipe().doing("cannot make a pipe")?;
        let (output, stdout) = if self.is_output_shown {
            let (output, end) = Output::pipe().doing("cannot make a pipe")?;
            (Some(output), Some(end))
        } else {
            (None, None)
        };
        let task = Task {
            process: &self.process,
            environment,
            hostname: &self.hostname,
            stdout,
            report: report_end.into(),
        };
        match sys::clone_into(NAMESPACES).doing("cannot start the user process")? {
            Some(pid) => Ok(Running {
                pid,
                output,
                report: OwnedFd::from(report).into(),
            }),
            None => reaper::run(task),
        }
    }
}

impl Running {
    /// How it ended, once the reaper did, with `status`.
    pub fn end(mut self, status: WaitStatus) -> End {
        let mut said = String::new();
        // The reaper is gone and held the only other end, so this does not wait.
        let _ = Read::by_ref(&mut self.report)
            .take(MAX_REPORT_BYTES)
            .read_to_string(&mut said);
        if let Some(output) = &mut self.output {
            while output.copy() && !output_is_empty(output) {}
        }
        reported(&said).unwrap_or_else(|| End {
            code: None,
            signal: status.terminating_signal().or(Some(libc::SIGKILL)),
            failure: None,
        })
    }
}

fn output_is_empty(output: &Output) -> bool {
    rustix::io::ioctl_fionread(output.fd()).map_or(true, |bytes| bytes == 0)
}

/// The last line of a report: `exit N`, `signal N` or `failed MESSAGE`.
fn reported(said: &str) -> Option<End> {
    let (kind, rest) = said.lines().next_back()?.split_once(' ')?;
    let end = |code, signal, failure| {
        Some(End {
            code,
            signal,
            failure,
        })
    };
    match kind {
        "exit" => end(Some(rest.parse().ok()?), None, None),
        "signal" => end(None, Some(rest.parse().ok()?), None),
        "failed" => end(Some(127), None, Some(rest.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let end = reported("exit 3\n").unwrap();
        assert_eq!((end.code, end.signal), (Some(3), None));
        assert_eq!(reported("signal 9\n").unwrap().signal, Some(9));
        let failure = reported("failed no such file\n").unwrap().failure;
        assert_eq!(failure.as_deref(), Some("no such file"));
        assert_eq!(reported(""), None);
        assert_eq!(reported("exit x"), None);
    }
}
