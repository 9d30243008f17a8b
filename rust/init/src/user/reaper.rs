//! PID 1 of the user process's namespace: builds the confinement, starts the process, passes signals
//! on, and collects whatever its descendants leave.
//!
//! It is ours, so it gives up what it does not need before the process exists: it is not dumpable,
//! has one capability (to signal processes of other users) and the process's own filter.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use cloister_wire::process::ProcessConfig;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};

use super::environment::Environment;
use super::program::{self, Program};
use super::{capabilities, rootfs, seccomp};
use crate::error::{Doing, InitError};
use crate::sys;

/// What the reaper is to do.
#[derive(Debug)]
pub struct Task<'a> {
    /// What the image says.
    pub process: &'a ProcessConfig,
    /// Its environment, less what comes from passwd.
    pub environment: Environment,
    /// Name of the enclave.
    pub hostname: &'a str,
    /// Where its output goes; nowhere when absent.
    pub stdout: Option<OwnedFd>,
    /// Where its end is reported.
    pub report: OwnedFd,
}

/// Runs in the fresh namespaces, and never returns.
pub fn run(mut task: Task<'_>) -> ! {
    let line = match start(&mut task).and_then(|(signals, child)| supervise(&signals, child)) {
        Ok(status) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit {code}\n"),
            (None, signal) => format!("signal {}\n", signal.unwrap_or(libc::SIGKILL)),
        },
        Err(error) => format!("failed {}\n", error.to_string().replace('\n', " ")),
    };
    let _ = File::from(task.report).write_all(line.as_bytes());
    sys::leave(0)
}

fn start(task: &mut Task<'_>) -> Result<(File, Pid), InitError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing("cannot be bound to init")?;
    let kept = [Some(&mut task.report), task.stdout.as_mut()];
    program::keep_only(kept.into_iter().flatten().collect())?;
    let signals = sys::block_all_signals(true).doing("cannot block signals")?;
    program::bound_memory_and_number();
    let process = task.process;
    rootfs::enter(task.hostname, !process.volumes.is_empty())?;
    let identity = program::identity(process)?;
    task.environment.set_default("HOME", &identity.home);
    rustix::thread::set_no_new_privs(true).doing("cannot forbid new privileges")?;
    capabilities::bound(capabilities::USER).doing("cannot drop capabilities")?;
    seccomp::apply()?;

    let (failure, failure_end) = std::io::pipe().doing("cannot make a pipe")?;
    let Some(child) = sys::clone_into(0).doing("cannot start the process")? else {
        let program = Program {
            argv: &process.argv,
            cwd: &process.cwd,
            environment: &task.environment,
            identity: &identity,
            output: task.stdout.as_ref(),
        };
        let error = program.run();
        let _ = File::from(OwnedFd::from(failure_end)).write_all(error.to_string().as_bytes());
        sys::leave(127);
    };
    drop(failure_end);
    task.stdout = None;
    capabilities::take(capabilities::REAPER).doing("cannot drop capabilities")?;
    let mut said = String::new();
    let _ = File::from(OwnedFd::from(failure)).read_to_string(&mut said);
    if said.is_empty() {
        Ok((signals, child))
    } else {
        Err(InitError(said))
    }
}

fn supervise(signals: &File, child: Pid) -> Result<WaitStatus, InitError> {
    loop {
        match sys::next_signal(signals) {
            Some(libc::SIGCHLD) => {
                while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                    let has_ended = status.exited() || status.signaled();
                    if pid == child && has_ended {
                        return Ok(status);
                    }
                }
            }
            Some(signal) => sys::kill(child, signal),
            None => return Err(InitError::new("cannot read signals")),
        }
    }
}
