//! From one of our processes to a program of the image: bounds, user, folder, `execve`.
//!
//! What the user process and HEALTHCHECK have in common. The caller is in the namespaces of the user
//! process, under its filter, and single-threaded.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use cloister_wire::process::ProcessConfig;
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::environment::Environment;
use super::identity::Identity;
use super::{capabilities, command, rootfs};
use crate::error::{Doing, InitError};
use crate::sys;

/// Most processes and threads of the user process, all together.
pub const MAX_PROCESSES: u64 = 4096;
/// Added to the chance that the kernel ends the process, and not the data plane, when memory is out.
const OOM_SCORE: &str = "500";

/// A program of the image, and as whom and where it runs.
#[derive(Debug)]
pub struct Program<'a> {
    /// The command; its first word is looked up as `execvp` does.
    pub argv: &'a [String],
    /// Working folder; made when it is absent.
    pub cwd: &'a str,
    /// Environment, whole.
    pub environment: &'a Environment,
    /// User and groups.
    pub identity: &'a Identity,
    /// Where its output goes; nowhere when absent.
    pub output: Option<&'a OwnedFd>,
}

impl Program<'_> {
    /// Becomes the program. Returns only when that fails.
    pub fn run(&self) -> InitError {
        match self.prepare() {
            Ok(()) => self.execute(),
            Err(error) => error,
        }
    }

    fn prepare(&self) -> Result<(), InitError> {
        rustix::process::setsid().doing("cannot start a session")?;
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .doing("cannot open /dev/null")?;
        sys::place(&null, 0).doing("cannot set standard input")?;
        for number in [1, 2] {
            let placed = match self.output {
                Some(output) => sys::place(output, number),
                None => sys::place(&null, number),
            };
            placed.doing("cannot set standard output")?;
        }
        limit(Resource::Nproc, MAX_PROCESSES)?;
        limit(Resource::Core, 0)?;
        // Before WORKDIR is made: what init inherited is that of whoever started the sandbox.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        // As Docker does, with root's rights; whether the process may enter is found out below.
        let _ = std::fs::create_dir_all(self.cwd);
        become_user(self.identity)?;
        rustix::process::chdir(self.cwd)
            .doing(&format!("WORKDIR `{}`", self.cwd.escape_debug()))?;
        sys::reset_signals();
        Ok(())
    }

    /// Tries each place where the program may be, as `execvp` does.
    fn execute(&self) -> InitError {
        let name = self.argv.first().map_or("", String::as_str);
        let shown = name.escape_debug();
        let Ok(arguments) = self
            .argv
            .iter()
            .map(|word| CString::new(word.as_str()))
            .collect::<Result<Vec<_>, _>>()
        else {
            return InitError::new("an argument of the command has a zero byte");
        };
        let path = self.environment.value("PATH").unwrap_or_default();
        let environment = self.environment.strings();
        let mut worst = None;
        for candidate in command::candidates(name, path) {
            let Ok(candidate) = CString::new(candidate.as_os_str().as_bytes()) else {
                continue;
            };
            let error = sys::exec(&candidate, &arguments, &environment);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => worst = Some(error),
                _ => return InitError::new(format!("cannot run `{shown}`: {error}")),
            }
        }
        match worst {
            Some(error) => InitError::new(format!("cannot run `{shown}`: {error}")),
            None => InitError::new(format!("no program `{shown}` in the image")),
        }
    }
}

/// USER of the image, by the image's own passwd and group.
///
/// # Errors
///
/// It names nobody there, or a file is too long.
pub fn identity(process: &ProcessConfig) -> Result<Identity, InitError> {
    let passwd = rootfs::account_file("/etc/passwd")?;
    let groups = rootfs::account_file("/etc/group")?;
    Identity::resolve(&process.user, &process.groups, &passwd, &groups)
        .doing(&format!("USER `{}`", process.user.escape_debug()))
}

/// Puts this process and what it starts under the bounds of the user process.
pub fn bound_memory_and_number() {
    const GROUP: &str = "/sys/fs/cgroup/process";
    // Where control groups are ours to make (not in a sandbox), they bound root's processes as well.
    let _ = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+pids");
    let _ = std::fs::create_dir(GROUP);
    let _ = std::fs::write(format!("{GROUP}/pids.max"), MAX_PROCESSES.to_string());
    let _ = std::fs::write(format!("{GROUP}/cgroup.procs"), "0");
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
}

/// Closes every descriptor but the standard ones and `kept`, which get the numbers from 3 on: nothing
/// else that init had open may be in the namespace of the user process, neither channels nor the NSM.
///
/// # Errors
///
/// What the system says.
pub fn keep_only(kept: Vec<&mut OwnedFd>) -> Result<(), InitError> {
    const FIRST: RawFd = 3;
    const FIRST_FREE: RawFd = 10;
    let high = |fd: &&mut OwnedFd| {
        rustix::io::fcntl_dupfd_cloexec(&**fd, FIRST_FREE).doing("cannot keep a descriptor")
    };
    let copies = kept.iter().map(high).collect::<Result<Vec<_>, _>>()?;
    let mut number = FIRST;
    for (fd, copy) in kept.into_iter().zip(copies) {
        sys::place(&copy, number).doing("cannot keep a descriptor")?;
        let placed = sys::inherited(number).doing("cannot keep a descriptor")?;
        // The objects that stood for other numbers are closed by number below, never through them.
        std::mem::forget(std::mem::replace(fd, placed));
        std::mem::forget(copy);
        number = number.saturating_add(1);
    }
    sys::close_from(number);
    Ok(())
}

fn become_user(identity: &Identity) -> Result<(), InitError> {
    let groups: Vec<_> = identity
        .groups
        .iter()
        .map(|&gid| Gid::from_raw(gid))
        .collect();
    match set_thread_groups(&groups) {
        // With a single id mapped the kernel forbids the call; the groups that stay are nobody's.
        Err(Errno::PERM) if identity.groups.iter().all(|&gid| gid == 0) => {}
        result => result.doing("cannot set the groups of USER")?,
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let unmapped = |error: Errno| {
        let Identity { uid, gid, .. } = identity;
        InitError::new(format!(
            "USER is {uid}:{gid}, which does not exist in this sandbox ({error})"
        ))
    };
    set_thread_res_gid(gid, gid, gid).map_err(unmapped)?;
    // Leaving user 0 empties the permitted set; staying keeps what the bounding set lets through.
    if identity.uid == 0 {
        capabilities::take(capabilities::USER).doing("cannot drop capabilities")?;
    }
    set_thread_res_uid(uid, uid, uid).map_err(unmapped)
}

fn limit(resource: Resource, most: u64) -> Result<(), InitError> {
    let own = rustix::process::getrlimit(resource)
        .maximum
        .unwrap_or(u64::MAX);
    let most = Some(most.min(own));
    let both = Rlimit {
        current: most,
        maximum: most,
    };
    rustix::process::setrlimit(resource, both).doing("cannot set a resource limit")
}
