//! The file systems of init itself. The user process has its own ([`crate::user::rootfs`]).

use std::ffi::CStr;
use std::fs;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};

use crate::console;
use crate::error::{Doing, InitError};
use crate::options::Profile;

/// Mounts what the profile has. Steps that a profile lacks are said, one line each.
///
/// # Errors
///
/// `/proc`, `/dev`, `/run` or `/tmp` cannot be mounted; nothing works without them.
pub fn mount_all(profile: &Profile) -> Result<(), InitError> {
    match profile {
        Profile::Machine => machine(),
        Profile::Sandbox(_) => sandbox(),
    }
}

fn machine() -> Result<(), InitError> {
    at("devtmpfs", "/dev", MountFlags::NOSUID, None)?;
    at("proc", "/proc", QUIET, None)?;
    at("sysfs", "/sys", QUIET, None)?;
    at("tmpfs", "/run", QUIET, Some(c"mode=755,size=16m"))?;
    at("tmpfs", "/tmp", QUIET, Some(c"mode=1777,size=16m"))?;
    at("tmpfs", "/dev/shm", QUIET, Some(c"mode=1777,size=16m"))?;
    optional(at(
        "devpts",
        "/dev/pts",
        QUIET,
        Some(c"newinstance,ptmxmode=666"),
    ));
    optional(at("cgroup2", "/sys/fs/cgroup", QUIET, None));
    leave_the_first_root()
}

fn sandbox() -> Result<(), InitError> {
    console::say("skipped: devtmpfs, /proc, /sys and /run, which the sandbox provides");
    console::say("skipped: cgroup2, which a user namespace may not mount");
    at("tmpfs", "/tmp", QUIET, Some(c"mode=1777,size=16m"))?;
    at("tmpfs", "/dev/shm", QUIET, Some(c"mode=1777,size=16m"))?;
    optional(at(
        "devpts",
        "/dev/pts",
        QUIET,
        Some(c"newinstance,ptmxmode=666"),
    ));
    Ok(())
}

/// The very first root of a kernel cannot be left by `pivot_root`, which the user process's own root
/// needs. So the same tree is mounted once more, over itself.
fn leave_the_first_root() -> Result<(), InitError> {
    let place = "/run/cloister/root";
    fs::create_dir_all(place).doing("cannot make the second root")?;
    rustix::mount::mount_bind_recursive("/", place).doing("cannot bind the root")?;
    rustix::process::chdir(place).doing("cannot enter the second root")?;
    mount_move(".", "/").doing("cannot move the root")?;
    rustix::process::chroot(".").doing("cannot change the root")?;
    rustix::process::chdir("/").doing("cannot enter the root")
}

fn at(kind: &str, place: &str, flags: MountFlags, data: Option<&CStr>) -> Result<(), InitError> {
    fs::create_dir_all(place).doing(&format!("cannot make `{place}`"))?;
    match mount(kind, place, kind, flags, data) {
        // Mounted already, by the kernel or by whoever started us.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(error).doing(&format!("cannot mount {kind} on `{place}`")),
    }
}

fn optional(result: Result<(), InitError>) {
    if let Err(error) = result {
        console::say(&format!("skipped: {error}"));
    }
}

/// What a file system without programs and devices gets.
pub const QUIET: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
