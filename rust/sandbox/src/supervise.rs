//! The launcher's loop while the enclave runs: one thread, one `poll`, nothing waits.
//!
//! It answers the NSM, copies init's console, passes requests to stop on to init, and kills the
//! enclave when its time is over or when whoever started the launcher is gone.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getppid, kill_process, waitpid};

use crate::nsm_server::NsmServer;
use crate::sys;

/// Sent by the kernel when the parent's thread ends; see [`Loop::signal`].
pub const PARENT_ENDED: Signal = Signal::USR1;

/// Everything the loop looks at.
#[derive(Debug)]
pub struct Loop<'a> {
    /// Signals of this process.
    pub signals: &'a File,
    /// The status channel: its reader's end tells that the parent is gone.
    pub status: &'a File,
    /// What init writes.
    pub console: OwnedFd,
    /// The NSM.
    pub nsm: NsmServer,
    /// The enclave's init.
    pub init: Pid,
    /// Who started this process.
    pub parent: Option<Pid>,
    /// From the first request to stop to the kill.
    pub grace: Duration,
    /// When the enclave is killed, once somebody asked it to stop.
    pub deadline: Option<Instant>,
}

impl Loop<'_> {
    /// Runs until init ended, and returns how. `handle` is the NSM.
    pub fn run(mut self, mut handle: impl FnMut(&[u8]) -> Vec<u8>) -> WaitStatus {
        loop {
            self.wait();
            while let Some(signal) = sys::next_signal(self.signals) {
                self.signal(signal);
            }
            if let Ok(Some((_, status))) = waitpid(Some(self.init), WaitOptions::NOHANG) {
                while self.copy_console() {}
                return status;
            }
            self.copy_console();
            self.nsm.progress(&mut handle);
            if has_hung_up(self.status) || self.deadline.is_some_and(|at| Instant::now() >= at) {
                self.kill();
            }
        }
    }

    fn wait(&self) {
        let mut fds = vec![
            PollFd::new(self.signals, PollFlags::IN),
            // No event is asked for: an error or a hang-up is always told.
            PollFd::new(self.status, PollFlags::empty()),
            PollFd::new(&self.console, PollFlags::IN),
        ];
        fds.extend(
            self.nsm
                .interests()
                .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)),
        );
        let left = self
            .deadline
            .map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
        let left = left.min(IDLE).saturating_add(Duration::from_millis(1));
        let timeout = Timespec::try_from(left).ok();
        // An interruption or a lack of memory ends the wait early, which is harmless.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    /// SIGTERM and SIGINT are passed on, for init to drain; the second one kills.
    fn signal(&mut self, signal: i32) {
        match signal {
            libc::SIGTERM | libc::SIGINT | libc::SIGHUP if self.deadline.is_none() => {
                self.deadline = Instant::now().checked_add(self.grace);
                let _ = kill_process(self.init, Signal::TERM);
            }
            libc::SIGTERM | libc::SIGINT | libc::SIGHUP => self.kill(),
            // The kernel also sends it when only the thread that started us ended: then the parent
            // is still the same.
            libc::SIGUSR1 if getppid() != self.parent => self.kill(),
            _ => {}
        }
    }

    fn kill(&self) {
        let _ = kill_process(self.init, Signal::KILL);
    }

    /// Copies what waits, at most one block. Control characters would be commands to a terminal.
    fn copy_console(&self) -> bool {
        let mut bytes = [0; CONSOLE_BLOCK];
        let Ok(length @ 1..) = rustix::io::read(&self.console, &mut bytes) else {
            return false;
        };
        let shown = bytes.get_mut(..length).unwrap_or_default();
        for byte in shown.iter_mut() {
            if (*byte < b' ' && *byte != b'\n' && *byte != b'\t') || *byte == 0x7f {
                *byte = b'?';
            }
        }
        // A reader that does not read must not stop the NSM: what it has no room for is lost.
        let mut stderr = io::stderr();
        if is_ready(&stderr, PollFlags::OUT) {
            let _ = stderr.write_all(shown);
        }
        true
    }
}

fn has_hung_up(status: &File) -> bool {
    is_ready(status, PollFlags::empty())
}

fn is_ready(fd: &impl AsFd, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, flags)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Longest sleep, so that nothing depends on a wake-up alone.
const IDLE: Duration = Duration::from_secs(1);
/// At most what a pipe takes without blocking once it is writable (`PIPE_BUF`).
const CONSOLE_BLOCK: usize = 4096;
