//! Starts the user process and hears of its end: init's side of [`super::reaper`].

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use cloister_wire::config::EnclaveConfig;
use cloister_wire::process::{CommandCheck, ProcessConfig};
use rustix::process::{Pid, PidfdFlags, WaitStatus, pidfd_open};

use super::environment::Environment;
use super::{check, reaper};
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
    environment: Environment,
    report: File,
}

/// One run of HEALTHCHECK.
#[derive(Debug)]
pub struct Examination {
    /// The envoy, a child of init.
    pub pid: Pid,
    report: File,
}

/// What a run of HEALTHCHECK said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `None`: well. Else what is wrong, in our words.
    pub problem: Option<String>,
    /// What the command wrote, as far as it was kept: the application's words.
    pub output: Vec<u8>,
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
        self.process.stop_signal
    }

    /// HEALTHCHECK of the image, when it decides.
    pub fn healthcheck(&self) -> Option<&CommandCheck> {
        self.process.healthcheck.as_ref()
    }

    /// Whether what it writes may be shown.
    pub fn is_output_shown(&self) -> bool {
        self.is_output_shown
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
        let task = reaper::Task {
            process: &self.process,
            environment: environment.clone(),
            hostname: &self.hostname,
            stdout,
            report: report_end.into(),
        };
        match sys::clone_into(NAMESPACES).doing("cannot start the user process")? {
            Some(pid) => Ok(Running {
                pid,
                output,
                environment,
                report: OwnedFd::from(report).into(),
            }),
            None => reaper::run(task),
        }
    }

    /// Starts a run of `check` beside `running`.
    ///
    /// # Errors
    ///
    /// The system has no room for another process, or the user process has just ended.
    pub fn examine(
        &self,
        check: &CommandCheck,
        running: &Running,
    ) -> Result<Examination, InitError> {
        let reaper = pidfd_open(running.pid, PidfdFlags::empty()).doing("cannot find its place")?;
        let (report, report_end) = io::pipe().doing("cannot make a pipe")?;
        // Whoever holds the other end, init never waits for it.
        rustix::io::ioctl_fionbio(&report, true).doing("cannot make a pipe")?;
        let task = check::Task {
            process: &self.process,
            check,
            environment: running.environment.clone(),
            reaper,
            report: report_end.into(),
        };
        match sys::clone_into(0).doing("cannot start the health check")? {
            Some(pid) => Ok(Examination {
                pid,
                report: OwnedFd::from(report).into(),
            }),
            None => check::run(task),
        }
    }
}

impl Examination {
    /// What it said, once the envoy ended.
    pub fn finding(mut self) -> Finding {
        let limit = u64::try_from(check::MAX_OUTPUT_BYTES)
            .unwrap_or(u64::MAX)
            .saturating_add(MAX_REPORT_BYTES);
        let mut said = Vec::new();
        // Without an end of file when the examiner outlives its envoy; what arrived counts.
        let _ = Read::by_ref(&mut self.report)
            .take(limit)
            .read_to_end(&mut said);
        found(&said)
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

/// A report of an examiner: `exit N`, `signal N`, `failed MESSAGE` or `timeout`, a line break, and
/// the output. A report that is none is that of a run that was killed.
fn found(said: &[u8]) -> Finding {
    let (line, output) = match said.iter().position(|&byte| byte == b'\n') {
        Some(end) => said.split_at(end),
        None => (&b""[..], &b""[..]),
    };
    let line = String::from_utf8_lossy(line);
    let problem = match line.split_once(' ').unwrap_or((&line, "")) {
        ("exit", "0") => None,
        ("exit", code) => Some(format!("exit code {code}")),
        ("signal", signal) => Some(format!("signal {signal}")),
        ("failed", message) => Some(message.to_owned()),
        ("timeout", _) => Some("it took too long and was killed".to_owned()),
        _ => Some("it was killed".to_owned()),
    };
    Finding {
        problem,
        output: output.get(1..).unwrap_or_default().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exit_code_0_is_well() {
        let well = Finding {
            problem: None,
            output: b"fine\n".to_vec(),
        };
        assert_eq!(found(b"exit 0\nfine\n"), well);
        for (said, problem) in [
            (&b"exit 1\nexit 0\n"[..], "exit code 1"),
            (b"exit 00\n", "exit code 00"),
            (b"signal 9\n", "signal 9"),
            (
                b"failed no program `x` in the image\n",
                "no program `x` in the image",
            ),
            (b"timeout\nslow", "it took too long and was killed"),
            (b"", "it was killed"),
            (b"exit 0", "it was killed"),
            (b"\nexit 0\n", "it was killed"),
        ] {
            assert_eq!(found(said).problem.as_deref(), Some(problem));
        }
    }

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
