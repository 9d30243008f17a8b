//! The child's way in: from a fresh set of namespaces to the image's init as PID 1.
//!
//! The order matters. What needs the host's file system (descriptors of `v` and of the mount point)
//! is opened as the outer user; then the process becomes root inside, builds a root of its own,
//! turns the host's out of reach, and only then unpacks the image, which is hostile until proved
//! otherwise. Nothing of the host is mounted inside but `run_dir/v` and six device nodes.

use std::ffi::{CString, c_int};
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cloister_wire::config::MAX_CONFIG_BYTES;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount,
    mount_bind, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::error::{Doing, SandboxError};
use crate::{sys, unpack};

/// Where the sockets are inside.
pub const SOCKET_DIR: &str = "/run/cloister/v";
/// The namespaces of an enclave. A control group namespace is added where the kernel has one.
pub const NAMESPACES: c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// What the child needs to know.
#[derive(Debug)]
pub struct Enclosure<'a> {
    /// Folder with `v/` and `root/`.
    pub run_dir: &'a Path,
    /// The ramdisks.
    pub ramdisks: &'a [&'a [u8]],
    /// Size of the root, in bytes; the kernel's own choice when absent.
    pub root_bytes: Option<u64>,
    /// Number of ids that exist inside.
    pub ids: u32,
    /// Read end of a pipe that the launcher holds: one byte is the sign to go on, its end means
    /// that the launcher is gone.
    pub launcher: &'a OwnedFd,
    /// Where init's console goes.
    pub console: &'a OwnedFd,
}

/// Becomes the enclave's init. Returns only when that fails.
pub fn enter(enclosure: &Enclosure<'_>) -> SandboxError {
    match prepare(enclosure) {
        Ok(()) => become_init(),
        Err(error) => error,
    }
}

fn prepare(enclosure: &Enclosure<'_>) -> Result<(), SandboxError> {
    let mut go = [0];
    match rustix::io::read(enclosure.launcher, &mut go) {
        Ok(1) => {}
        _ => sys::leave(1),
    }
    let folder = |name: &str| {
        open(
            enclosure.run_dir.join(name),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .doing(|| format!("cannot open `{name}` in run_dir"))
    };
    let (sockets, mount_point) = (folder("v")?, folder("root")?);
    become_root(enclosure.ids)?;
    let root = new_root(enclosure.root_bytes, &mount_point).map_err(forbidden)?;
    rustix::process::fchdir(&root).doing(|| "cannot enter the new root".into())?;
    fill(&sockets)?;
    leave_host()?;
    unpack::unpack(enclosure.ramdisks, Path::new("/"), enclosure.ids)?;
    unpack::check_user(&process_json(), enclosure.ids)?;
    if !fs::symlink_metadata("/init").is_ok_and(|init| init.is_file()) {
        return Err(SandboxError::new(
            "the image has no `/init` in its ramdisks",
        ));
    }
    last_settings(enclosure)
}

/// Empty when there is none, or none that init would read.
fn process_json() -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open("/cloister/process.json") {
        let limit = u64::try_from(MAX_CONFIG_BYTES).unwrap_or(u64::MAX);
        let _ = file.take(limit).read_to_end(&mut bytes);
    }
    bytes
}

/// The user and group of root inside. With one id only, the groups of the caller stay: the kernel
/// does not let them be dropped, and they are nobody's inside.
fn become_root(ids: u32) -> Result<(), SandboxError> {
    if ids > 1 {
        set_thread_groups(&[]).doing(|| "cannot drop the groups".into())?;
    }
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    set_thread_res_gid(gid, gid, gid).doing(|| "cannot become group 0 inside".into())?;
    set_thread_res_uid(uid, uid, uid).doing(|| "cannot become user 0 inside".into())
}

fn new_root(bytes: Option<u64>, mount_point: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(tmpfs.as_fd(), "source", "enclave")?;
    fsconfig_set_string(tmpfs.as_fd(), "mode", "755")?;
    if let Some(bytes) = bytes {
        fsconfig_set_string(tmpfs.as_fd(), "size", bytes.to_string())?;
    }
    fsconfig_create(tmpfs.as_fd())?;
    let flags = MountAttrFlags::empty();
    let root = fsmount(tmpfs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    attach(&root, mount_point, "")?;
    Ok(root)
}

fn attach(tree: &OwnedFd, at: impl AsFd, name: &str) -> rustix::io::Result<()> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if name.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    move_mount(tree.as_fd(), "", at, name, flags)
}

/// The parts of the new root that come from outside; the working folder is the new root.
fn fill(sockets: &OwnedFd) -> Result<(), SandboxError> {
    for name in [
        "dev",
        "proc",
        "run",
        "run/cloister",
        "run/cloister/v",
        "sys",
        "tmp",
    ] {
        fs::create_dir(name).doing(|| format!("cannot make `/{name}` inside"))?;
    }
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "proc", "proc", quiet, None)
        .doing(|| "cannot mount /proc inside".into())
        .map_err(|error| {
            error.hint(
                "in a container, /proc must not be masked (docker: `--security-opt \
                 systempaths=unconfined`)",
            )
        })?;
    // Where this is not allowed, init notes that /sys is absent and goes on.
    let _ = mount("sysfs", "sys", "sysfs", quiet | MountFlags::RDONLY, None);
    for name in ["full", "null", "random", "tty", "urandom", "zero"] {
        let node = PathBuf::from("dev").join(name);
        fs::write(&node, b"").doing(|| format!("cannot make `/dev/{name}` inside"))?;
        mount_bind(Path::new("/dev").join(name), &node)
            .doing(|| format!("cannot bind `/dev/{name}`"))?;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(sockets, "", flags).doing(|| "cannot bind `v`".into())?;
    attach(&tree, CWD, "run/cloister/v").doing(|| "cannot mount `v` inside".into())
}

/// Makes the working folder the root and lets go of everything else that was mounted.
fn leave_host() -> Result<(), SandboxError> {
    rustix::process::pivot_root(".", ".").doing(|| "cannot change the root".into())?;
    unmount(".", UnmountFlags::DETACH).doing(|| "cannot let go of the host's root".into())?;
    rustix::process::chdir("/").doing(|| "cannot enter the new root".into())
}

fn last_settings(enclosure: &Enclosure<'_>) -> Result<(), SandboxError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none).doing(|| "cannot forbid core dumps".into())?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "cannot open /dev/null".into())?;
    rustix::process::setsid().doing(|| "cannot start a session".into())?;
    // After the change of user, which clears it. The launcher may have ended before this line: then
    // its end of the pipe is closed.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing(|| "cannot be bound to the launcher".into())?;
    if launcher_is_gone(enclosure.launcher) {
        sys::leave(1);
    }
    dup2_stdin(&null).doing(|| "cannot set standard input".into())?;
    dup2_stdout(&null).doing(|| "cannot set standard output".into())?;
    dup2_stderr(enclosure.console).doing(|| "cannot set standard error".into())?;
    sys::close_on_exec_from_3();
    // A request to stop that comes before init listens must wait for it: PID 1 would ignore it.
    sys::block_all_signals();
    Ok(())
}

fn launcher_is_gone(pipe: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn become_init() -> SandboxError {
    let socket_dir = CString::new(SOCKET_DIR).unwrap_or_default();
    let error = sys::exec(c"/init", &[c"/init", c"--sandbox-dir", &socket_dir]);
    SandboxError::image(format!("cannot start `/init` of the image: {error}"))
        .hint("an image for another processor, or with an init that is not static, cannot run here")
}

/// The first mount fails when the namespace was granted in name only.
fn forbidden(error: rustix::io::Errno) -> SandboxError {
    let refusal =
        SandboxError::permission(format!("cannot mount inside the user namespace: {error}"));
    refusal.hint(namespace_hint())
}

/// Why this system refuses user namespaces, as far as its settings tell, and what to set.
pub fn namespace_hint() -> String {
    let setting = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    hint_for(
        &setting("/proc/sys/kernel/unprivileged_userns_clone"),
        &setting("/proc/sys/user/max_user_namespaces"),
        &setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    )
}

fn hint_for(clone: &str, most: &str, apparmor: &str) -> String {
    if clone == "0" {
        return "as root: `sysctl kernel.unprivileged_userns_clone=1`".into();
    }
    if most == "0" {
        return "as root: `sysctl user.max_user_namespaces=65536`".into();
    }
    if apparmor == "1" {
        return "as root: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or give \
                cloister-sandbox an AppArmor profile that allows `userns`"
            .into();
    }
    "in a container, allow it to make user namespaces (docker: `--security-opt \
     seccomp=unconfined --security-opt apparmor=unconfined`)"
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_the_setting_that_forbids() {
        let hint = |clone, most, apparmor| hint_for(clone, most, apparmor);
        assert!(hint("0", "100", "").contains("unprivileged_userns_clone=1"));
        assert!(hint("1", "0", "").contains("max_user_namespaces=65536"));
        assert!(hint("", "100", "1").contains("apparmor_restrict"));
        assert!(hint("1", "100", "0").contains("container"));
    }
}
