//! One run of HEALTHCHECK: the image's own command, beside the user process and confined like it.
//!
//! Three processes for a moment. The *envoy*, a child of init, enters the namespaces of the user
//! process from outside and has no more than its rights before it looks at a file of the image. The
//! *examiner*, the envoy's child, is inside: it bounds the time and the output and collects what the
//! command leaves. The *command* is the examiner's child. The reaper stays as small as it is.
//!
//! The verdict is an exit code, as Docker judges it: 0 is well, everything else and a run that takes
//! too long is not. Output is read to its end and kept up to [`MAX_OUTPUT_BYTES`]; who may see it is
//! decided by init.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cloister_wire::process::{CommandCheck, ProcessConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};
use rustix::thread::{CapabilitySet, ThreadNameSpaceType, move_into_thread_name_spaces};

use super::capabilities;
use super::environment::Environment;
use super::program::{self, Program};
use super::seccomp;
use crate::error::{Doing, InitError};
use crate::sys;

/// Output that is kept of one run, in bytes, as Docker keeps it (moby `daemon/health.go`).
pub const MAX_OUTPUT_BYTES: usize = 4096;
/// How long the end of a killed run is waited for.
const KILL_GRACE: Duration = Duration::from_secs(1);
/// Between two looks at what is left of it.
const KILL_STEP: Duration = Duration::from_millis(20);

/// What an envoy is to do.
#[derive(Debug)]
pub struct Task<'a> {
    /// What the image says.
    pub process: &'a ProcessConfig,
    /// What is run.
    pub check: &'a CommandCheck,
    /// Environment of the user process, less what comes from passwd.
    pub environment: Environment,
    /// The reaper of the user process, whose namespaces these are.
    pub reaper: OwnedFd,
    /// Where the outcome is reported.
    pub report: OwnedFd,
}

/// The envoy: runs as a fresh child of init, and never returns.
pub fn run(mut task: Task<'_>) -> ! {
    if let Err(error) = go(&mut task) {
        say(&task.report, &failure(&error), &[]);
    }
    sys::leave(0)
}

fn go(task: &mut Task<'_>) -> Result<(), InitError> {
    let bound = || rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    bound().doing("cannot be bound to init")?;
    program::keep_only(vec![&mut task.report, &mut task.reaper])?;
    program::bound_memory_and_number();
    let spaces = ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    move_into_thread_name_spaces(task.reaper.as_fd(), spaces)
        .doing("cannot enter the namespaces of the user process")?;
    // From here on this process may do what the user process may, and it has no files of ours.
    rustix::thread::set_no_new_privs(true).doing("cannot forbid new privileges")?;
    capabilities::bound(capabilities::USER).doing("cannot drop capabilities")?;
    capabilities::take(capabilities::USER).doing("cannot drop capabilities")?;
    seccomp::apply()?;
    let Some(_) = sys::clone_into(0).doing("cannot start the examiner")? else {
        let outcome = bound()
            .doing("cannot be bound to its envoy")
            .and_then(|()| examine(task));
        match outcome {
            Ok((line, output)) => say(&task.report, &line, &output),
            Err(error) => say(&task.report, &failure(&error), &[]),
        }
        sys::leave(0)
    };
    capabilities::take(CapabilitySet::empty()).doing("cannot drop capabilities")?;
    // It is the only child, it has its own deadline, and init has one for both.
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((_, status))) if has_ended(status) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Ok(()),
        }
    }
}

/// One write into an empty pipe, which has room for all of it.
fn say(report: &OwnedFd, line: &str, output: &[u8]) {
    let _ = rustix::io::write(report, &[line.as_bytes(), b"\n", output].concat());
}

fn failure(error: &InitError) -> String {
    format!("failed {}", error.to_string().replace('\n', " "))
}

/// The examiner: the outcome of the command in one line, and its output.
fn examine(task: &mut Task<'_>) -> Result<(String, Vec<u8>), InitError> {
    let deadline = after(Duration::from_millis(task.check.timeout_ms.into()));
    // What loses its parent comes here, so that nothing of a run that is killed escapes.
    rustix::process::set_child_subreaper(Pid::from_raw(1)).doing("cannot collect processes")?;
    let signals = sys::block_all_signals(false).doing("cannot block signals")?;
    let (output, output_end) = io::pipe().doing("cannot make a pipe")?;
    let (refused, refused_end) = io::pipe().doing("cannot make a pipe")?;
    let Some(command) = sys::clone_into(0).doing("cannot start the health check")? else {
        let error = become_command(task, &output_end.into());
        let _ = File::from(OwnedFd::from(refused_end)).write_all(error.to_string().as_bytes());
        sys::leave(127);
    };
    drop((output_end, refused_end));
    capabilities::take(capabilities::REAPER).doing("cannot drop capabilities")?;
    let mut said = String::new();
    let _ = File::from(OwnedFd::from(refused)).read_to_string(&mut said);
    if !said.is_empty() {
        return Err(InitError(said));
    }
    let mut output = Output::new(output.into()).doing("cannot read the output")?;
    let status = await_command(command, &signals, &mut output, deadline);
    if status.is_none() {
        kill_all(command, &signals);
    }
    output.copy();
    let line = match status.map(|status| (status.exit_status(), status.terminating_signal())) {
        None => "timeout".to_owned(),
        Some((Some(code), _)) => format!("exit {code}"),
        Some((None, signal)) => format!("signal {}", signal.unwrap_or(libc::SIGKILL)),
    };
    Ok((line, output.kept))
}

fn become_command(task: &mut Task<'_>, output: &OwnedFd) -> InitError {
    let identity = match program::identity(task.process) {
        Ok(identity) => identity,
        Err(error) => return error,
    };
    task.environment.set_default("HOME", &identity.home);
    let program = Program {
        argv: &task.check.argv,
        cwd: &task.process.cwd,
        environment: &task.environment,
        identity: &identity,
        output: Some(output),
    };
    program.run()
}

/// How the command ended, or `None` when it did not in time. What it left running runs on, as in a
/// container.
fn await_command(
    command: Pid,
    signals: &File,
    output: &mut Output,
    deadline: Instant,
) -> Option<WaitStatus> {
    loop {
        if let Some(status) = collect(command) {
            return Some(status);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if let Some(pipe) = &output.pipe {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        let left = left.saturating_add(Duration::from_millis(1));
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        while sys::next_signal(signals).is_some() {}
        output.copy();
    }
}

/// Collects whoever ended; the status of `command` when it is among them.
fn collect(command: Pid) -> Option<WaitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == command && has_ended(status) {
            found = Some(status);
        }
    }
    found
}

fn has_ended(status: WaitStatus) -> bool {
    status.exited() || status.signaled()
}

/// Kills the command with everything that came of it: each child that loses its parent is given to
/// this process, and found in the next round.
fn kill_all(command: Pid, signals: &File) {
    let until = after(KILL_GRACE);
    let _ = rustix::process::kill_process_group(command, Signal::KILL);
    loop {
        collect(command);
        let children = children();
        if children.is_empty() || Instant::now() >= until {
            return;
        }
        for pid in children {
            sys::kill(pid, libc::SIGKILL);
        }
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(KILL_STEP).ok().as_ref());
        while sys::next_signal(signals).is_some() {}
    }
}

/// The children of this process, dead ones too, from `/proc/PID/stat` (proc(5)).
fn children() -> Vec<Pid> {
    let own = std::process::id();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            (parent(&stat)? == own).then_some(pid)
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// The fourth field; the second, the name, may have spaces and parentheses itself.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn after(pause: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(pause).unwrap_or(now)
}

/// What the command writes: read to the end, kept in part.
struct Output {
    /// Absent after its end.
    pipe: Option<File>,
    kept: Vec<u8>,
}

impl Output {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self {
            pipe: Some(pipe.into()),
            kept: Vec::new(),
        })
    }

    /// Takes what is there, a bounded number of blocks.
    fn copy(&mut self) {
        let mut bytes = [0; 8192];
        for _ in 0..MAX_BLOCKS {
            let Some(pipe) = &mut self.pipe else {
                return;
            };
            match pipe.read(&mut bytes) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    let room = MAX_OUTPUT_BYTES.saturating_sub(self.kept.len());
                    self.kept.extend(bytes.iter().take(length.min(room)));
                }
                Err(_) => return,
            }
        }
    }
}

/// Blocks of one turn: a command that writes without end must not keep its deadline from being seen.
const MAX_BLOCKS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parent("12 (sh) S 7 12 12 0"), Some(7));
        assert_eq!(parent("12 (a) S 9 (b) S 7 12"), Some(7));
        assert_eq!(parent("12 (sh"), None);
    }

    #[test]
    fn output_is_read_to_its_end_and_kept_in_part() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut output = Output::new(reader.into()).unwrap();
        let text = vec![b'x'; 60_000];
        writer.write_all(&text).unwrap();
        output.copy();
        assert_eq!(output.kept.len(), MAX_OUTPUT_BYTES);
        // The pipe is empty again: a command that writes more is not held up.
        writer.write_all(&text).unwrap();
        output.copy();
        assert!(output.pipe.is_some());
        drop(writer);
        output.copy();
        assert!(output.pipe.is_none());
        assert_eq!(output.kept.len(), MAX_OUTPUT_BYTES);
    }
}
