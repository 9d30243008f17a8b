//! A child that outlives the launcher by a moment: it removes what a killed launcher leaves.
//!
//! Namespaces and mounts go with their last process, and init is killed with the launcher; the run
//! folder and the control groups are files, and somebody has to remove them.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};

use crate::cgroup::Groups;
use crate::sys;

/// The child, and the end of the pipe that tells it whether we are alive.
#[derive(Debug)]
pub struct Sweeper {
    pid: Pid,
    _alive: OwnedFd,
}

impl Sweeper {
    /// Starts the child. `groups` are those made so far: start it when they are complete.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn start(run_dir: &Path, groups: &mut Groups) -> std::io::Result<Self> {
        let (reader, writer) = sys::pipe()?;
        if let Some(pid) = sys::fork()? {
            return Ok(Self {
                pid,
                _alive: writer,
            });
        }
        drop(writer);
        wait_for_the_end(&reader);
        sweep(run_dir, groups);
        sys::leave(0);
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Ends the child, when the launcher removes things itself.
    pub fn stop(self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

fn wait_for_the_end(reader: &OwnedFd) {
    // Not with the launcher's group or terminal, and deaf to everything but SIGKILL.
    let _ = rustix::process::setsid();
    sys::block_all_signals();
    sys::close_all_but(reader);
    let mut byte = [0];
    while rustix::io::read(reader, &mut byte) == Err(rustix::io::Errno::INTR) {}
}

/// Removes the run folder and the groups. Init may still be ending, so a folder that is not empty
/// is tried again.
pub fn sweep(run_dir: &Path, groups: &mut Groups) {
    groups.remove();
    for _ in 0..ATTEMPTS {
        match fs::remove_dir_all(run_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                std::thread::sleep(PAUSE);
            }
            _ => break,
        }
    }
}

const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);
