//! The mount namespace of the user process: the image's root, and nothing of ours in it.
//!
//! Everything is mounted after the change of root, so that a symbolic link in the image leads
//! nowhere but into the image. What comes from outside (six device nodes) is taken as descriptors
//! before. The old root is let go last: until then the kernel lets a user namespace mount `/proc`.

use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_bind, mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree, unmount,
};

use super::identity::MAX_FILE_BYTES;
use crate::error::{Doing, InitError};
use crate::mounts::QUIET;

/// Where the image's root lies in init's.
pub const ROOTFS: &str = "/rootfs";

/// Devices of the user process.
const NODES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// Hidden, as Docker hides them: what they tell is about the machine, or takes commands to it.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// Not to be written: root's files there are settings of the machine, behind no capability.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Makes the image's root the root of this process, which must be in a mount namespace of its own.
/// Volumes come with it.
///
/// # Errors
///
/// The system refused a step that the confinement needs.
pub fn enter(hostname: &str, has_volumes: bool) -> Result<(), InitError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).doing("cannot make mounts private")?;
    let nodes = device_nodes()?;
    mount_bind_recursive(ROOTFS, ROOTFS).doing("cannot bind the image's root")?;
    rustix::process::chdir(ROOTFS).doing("cannot enter the image's root")?;
    rustix::process::pivot_root(".", ".").doing("cannot change the root")?;
    fill(nodes, hostname, has_volumes)?;
    // "." is where the old root lies on the new one.
    unmount(".", UnmountFlags::DETACH).doing("cannot let go of the old root")?;
    rustix::process::chdir("/").doing("cannot enter the new root")?;
    mount_remount("/", MountFlags::BIND | MountFlags::NODEV, c"").doing("cannot forbid devices")
}

fn device_nodes() -> Result<Vec<(&'static str, OwnedFd)>, InitError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let node = |name| -> Result<_, InitError> {
        let path = Path::new("/dev").join(name);
        let tree = open_tree(CWD, &path, flags).doing(&format!("cannot take /dev/{name}"))?;
        Ok((name, tree))
    };
    NODES.into_iter().map(node).collect()
}

fn fill(
    nodes: Vec<(&'static str, OwnedFd)>,
    hostname: &str,
    has_volumes: bool,
) -> Result<(), InitError> {
    let folder = |path: &str| match fs::create_dir(path) {
        Err(error) if !Path::new(path).is_dir() => {
            Err(error).doing(&format!("cannot make `{path}` in the image"))
        }
        _ => Ok(()),
    };
    for path in ["/proc", "/sys", "/dev", "/tmp", "/etc"] {
        folder(path)?;
    }
    mount("proc", "/proc", "proc", QUIET, None).doing("cannot mount /proc for the process")?;
    // Not everywhere allowed; programs get along without.
    let _ = mount("sysfs", "/sys", "sysfs", QUIET | MountFlags::RDONLY, None);
    let programs = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", "/dev", "tmpfs", programs, c"mode=755,size=64k").doing("cannot mount /dev")?;
    for (name, tree) in nodes {
        let path = Path::new("/dev").join(name);
        fs::File::create(&path).doing("cannot make a device node")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(tree.as_fd(), "", CWD, &path, flags).doing("cannot mount a device node")?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, Path::new("/dev").join(name)).doing("cannot make a link in /dev")?;
    }
    folder("/dev/pts")?;
    let _ = mount(
        "devpts",
        "/dev/pts",
        "devpts",
        programs,
        c"newinstance,ptmxmode=666",
    );
    folder("/dev/shm")?;
    // Volumes outlive the process and come first.
    let (tmp_part, shared_part) = if has_volumes { (8, 8) } else { (2, 4) };
    let shared = part_of_root(shared_part, 0o1777);
    mount("tmpfs", "/dev/shm", "tmpfs", QUIET, shared.as_c_str()).doing("cannot mount /dev/shm")?;
    // What an image brings in /tmp stays; it lies in the root, which is bounded too, or in a volume.
    let is_volume = device("/tmp") != device("/");
    if !is_volume && fs::read_dir("/tmp").is_ok_and(|mut entries| entries.next().is_none()) {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let bounded = part_of_root(tmp_part, 0o1777);
        mount("tmpfs", "/tmp", "tmpfs", flags, bounded.as_c_str()).doing("cannot mount /tmp")?;
    }
    for path in MASKED {
        mask(path)?;
    }
    for path in READ_ONLY {
        protect(path)?;
    }
    write_if_absent("/etc/hostname", &format!("{hostname}\n"));
    write_if_absent("/etc/resolv.conf", "nameserver 127.0.0.1\n");
    let hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    write_if_absent("/etc/hosts", &format!("{hosts}127.0.0.1\t{hostname}\n"));
    Ok(())
}

fn device(path: &str) -> Option<u64> {
    fs::metadata(path).map(|found| found.dev()).ok()
}

/// Options of a tmpfs that is `part` times smaller than the root, which is half of the enclave's
/// memory: all of them full leave an eighth. A root that does not know its size (ramfs) is on a
/// machine of its own, where percents are of the enclave's memory.
pub fn part_of_root(part: u64, mode: u32) -> CString {
    let root =
        rustix::fs::statvfs("/").map_or(0, |root| root.f_blocks.saturating_mul(root.f_frsize));
    CString::new(tmpfs_options(root, part, mode)).unwrap_or_default()
}

fn tmpfs_options(root: u64, part: u64, mode: u32) -> String {
    let (size, inodes) = match root.checked_div(part) {
        Some(bytes @ 1..) => (bytes.to_string(), bytes / BYTES_OF_AN_INODE),
        _ => (
            format!("{}%", 50_u64.checked_div(part).unwrap_or(1).max(1)),
            0,
        ),
    };
    let inodes = inodes.max(65_536);
    format!("mode={mode:o},size={size},nr_inodes={inodes}")
}

/// A large enclave may have more files.
const BYTES_OF_AN_INODE: u64 = 16 << 10;

fn mask(path: &str) -> Result<(), InitError> {
    let what = format!("cannot hide `{path}`");
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => {
            let flags = QUIET | MountFlags::RDONLY;
            mount("tmpfs", path, "tmpfs", flags, c"size=0,nr_inodes=1").doing(&what)
        }
        Ok(_) => mount_bind("/dev/null", path).doing(&what),
    }
}

fn protect(path: &str) -> Result<(), InitError> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let what = format!("cannot protect `{path}`");
    mount_bind(path, path).doing(&what)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | QUIET;
    mount_remount(path, flags, c"").doing(&what)
}

/// The image lies in memory, so this changes nothing that outlives the enclave. Docker leaves empty
/// files there for the same purpose.
fn write_if_absent(path: &str, text: &str) {
    let is_empty = fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0);
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW);
    if !is_empty {
        options.create_new(true);
    }
    // A file of the image's own stays; an image without a writable /etc goes without.
    if let Ok(mut file) = options.open(path) {
        let _ = file.write_all(text.as_bytes());
    }
}

/// `/etc/passwd` or `/etc/group` of the image: empty when there is none.
///
/// # Errors
///
/// It is longer than [`MAX_FILE_BYTES`], or not text.
pub fn account_file(path: &str) -> Result<String, InitError> {
    // Whatever the user process made of the file since: opening a pipe does not wait.
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let Ok(file) = opened else {
        return Ok(String::new());
    };
    if !file.metadata().is_ok_and(|file| file.is_file()) {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES.saturating_add(1))
        .read_to_end(&mut bytes)
        .doing(&format!("cannot read `{path}` of the image"))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE_BYTES) {
        return Err(InitError::new(format!(
            "`{path}` of the image is longer than {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of the memory is the root; with volumes or without, all of them full leave an eighth.
    #[test]
    fn parts_are_of_the_root_and_percents_of_memory_where_it_knows_no_size() {
        let gib = 1 << 30;
        assert_eq!(
            tmpfs_options(gib, 2, 0o1777),
            "mode=1777,size=536870912,nr_inodes=65536"
        );
        assert_eq!(
            tmpfs_options(64 * gib, 2, 0o700),
            "mode=700,size=34359738368,nr_inodes=2097152"
        );
        let percents = [2, 4, 8].map(|part| tmpfs_options(0, part, 0o1777));
        for (options, size) in percents.iter().zip(["25%", "12%", "6%"]) {
            assert!(options.contains(&format!("size={size},")), "{options}");
        }
        for parts in [&[1, 2, 4][..], &[1, crate::volumes::PART, 8, 8]] {
            let eighths: u64 = parts.iter().map(|part| 16 / part).sum();
            assert!(eighths <= 28, "{parts:?}");
        }
    }
}
