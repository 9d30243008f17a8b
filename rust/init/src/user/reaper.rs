//! PID 1 of the user process's namespace: builds the confinement, starts the process, passes signals
//! on, and collects whatever its descendants leave.
//!
//! It is ours, so it gives up what it does not need before the process exists: it is not dumpable,
//! has one capability (to signal processes of other users) and the process's own filter.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use cloister_wire::config::ProcessConfig;
use rustix::io::Errno;
use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid, WaitOptions, WaitStatus, wait};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::environment::Environment;
use super::identity::Identity;
use super::{capabilities, command, rootfs, seccomp};
use crate::error::{Doing, InitError};
use crate::sys;

/// Most processes and threads of the user process, all together.
pub const MAX_PROCESSES: u64 = 4096;
/// Added to the chance that the kernel ends the process, and not the data plane, when memory is out.
const OOM_SCORE: &str = "500";

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
    keep_only(task)?;
    let signals = sys::block_all_signals(true).doing("cannot block signals")?;
    // Where control groups are ours to make (not in a sandbox), they bound root's processes as well.
    join_group();
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    rootfs::enter(task.hostname)?;
    let passwd = rootfs::account_file("/etc/passwd")?;
    let groups = rootfs::account_file("/etc/group")?;
    let process = task.process;
    let identity = Identity::resolve(&process.user, &process.groups, &passwd, &groups)
        .doing(&format!("USER `{}`", process.user.escape_debug()))?;
    task.environment.set_default("HOME", &identity.home);
    rustix::thread::set_no_new_privs(true).doing("cannot forbid new privileges")?;
    capabilities::bound(capabilities::USER).doing("cannot drop capabilities")?;
    seccomp::apply()?;

    let (failure, failure_end) = std::io::pipe().doing("cannot make a pipe")?;
    let Some(child) = sys::clone_into(0).doing("cannot start the process")? else {
        let error = become_process(task, &identity);
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

/// Nothing else that init had open may be here: neither channels nor the NSM.
fn keep_only(task: &mut Task<'_>) -> Result<(), InitError> {
    const REPORT: i32 = 3;
    const STDOUT: i32 = 4;
    const FIRST_FREE: i32 = 10;
    let high = |fd: &OwnedFd| {
        rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FREE).doing("cannot keep a descriptor")
    };
    let report = high(&task.report)?;
    let stdout = task.stdout.as_ref().map(high).transpose()?;
    sys::place(&report, REPORT).doing("cannot keep the report")?;
    if let Some(stdout) = &stdout {
        sys::place(stdout, STDOUT).doing("cannot keep the output")?;
    }
    // The objects that stood for these numbers are closed by number below, never through them.
    std::mem::forget((report, stdout));
    let kept = |number| sys::inherited(number).doing("cannot keep a descriptor");
    std::mem::forget(std::mem::replace(&mut task.report, kept(REPORT)?));
    if let Some(old) = task.stdout.take() {
        std::mem::forget(old);
        task.stdout = Some(kept(STDOUT)?);
    }
    sys::close_from(if task.stdout.is_some() {
        STDOUT + 1
    } else {
        REPORT + 1
    });
    Ok(())
}

fn join_group() {
    const GROUP: &str = "/sys/fs/cgroup/process";
    let _ = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+pids");
    let _ = std::fs::create_dir(GROUP);
    let _ = std::fs::write(format!("{GROUP}/pids.max"), MAX_PROCESSES.to_string());
    let _ = std::fs::write(format!("{GROUP}/cgroup.procs"), "0");
}

fn become_process(task: &Task<'_>, identity: &Identity) -> InitError {
    match prepare(task, identity) {
        Ok(()) => execute(task),
        Err(error) => error,
    }
}

fn prepare(task: &Task<'_>, identity: &Identity) -> Result<(), InitError> {
    rustix::process::setsid().doing("cannot start a session")?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .doing("cannot open /dev/null")?;
    sys::place(&null, 0).doing("cannot set standard input")?;
    for number in [1, 2] {
        let placed = match &task.stdout {
            Some(stdout) => sys::place(stdout, number),
            None => sys::place(&null, number),
        };
        placed.doing("cannot set standard output")?;
    }
    limit(Resource::Nproc, MAX_PROCESSES)?;
    limit(Resource::Core, 0)?;
    // Before WORKDIR is made: what init inherited is that of whoever started the sandbox.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let cwd = &task.process.cwd;
    // As Docker does, with root's rights; whether the process may enter is found out below.
    let _ = std::fs::create_dir_all(cwd);
    become_user(identity)?;
    rustix::process::chdir(cwd.as_str()).doing(&format!("WORKDIR `{}`", cwd.escape_debug()))?;
    sys::reset_signals();
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
        Err(Errno::PERM) if groups.is_empty() => {}
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

/// Tries each place where the program may be, as `execvp` does.
fn execute(task: &Task<'_>) -> InitError {
    let argv = &task.process.argv;
    let name = argv.first().map_or("", String::as_str);
    let shown = name.escape_debug();
    let Ok(arguments) = argv
        .iter()
        .map(|word| CString::new(word.as_str()))
        .collect::<Result<Vec<_>, _>>()
    else {
        return InitError::new("an argument of the command has a zero byte");
    };
    let path = task.environment.value("PATH").unwrap_or_default();
    let environment = task.environment.strings();
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
