//! VOLUME: memory of their own for the folders where an image keeps its data.
//!
//! One tmpfs for all of them, a part of which is mounted at each path below [`ROOTFS`]. As with an
//! anonymous volume of Docker, what the image has at the path is there, with owner, mode and time, and
//! what the user process writes stays when that process is started again: the mounts are init's, and
//! each user process gets them with its root. They end with the enclave.
//!
//! The image's files are moved and not copied, since both places are memory. Paths are resolved inside
//! the image ([`ResolveFlags::IN_ROOT`]), so that a symbolic link leads nowhere but into it. Nothing
//! else runs yet.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, mkdirat, mknodat,
    openat, openat2, utimensat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use crate::error::{Doing, InitError};
use crate::user::rootfs::{ROOTFS, part_of_root};

/// The part of the root that all volumes together are.
pub const PART: u64 = 2;
/// Where the tmpfs lies while its parts are mounted.
const STORE: &str = "/tmp/volumes";

/// Mounts `volumes`, which are sorted, so that one inside another comes after it.
///
/// # Errors
///
/// A path leads to something that is no folder, or the files of the image do not fit.
pub fn mount_all(volumes: &[String]) -> Result<(), InitError> {
    if volumes.is_empty() {
        return Ok(());
    }
    let path = File::open(ROOTFS).doing("cannot open the image's root")?;
    let root = OwnedFd::from(path);
    fs::create_dir(STORE).doing("cannot make room for volumes")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let options = part_of_root(PART, 0o700);
    mount("tmpfs", STORE, "tmpfs", flags, options.as_c_str()).doing("cannot mount the volumes")?;
    for (number, path) in volumes.iter().enumerate() {
        let inside = Path::new(STORE).join(number.to_string());
        volume(&root, path, &inside).doing(&format!("VOLUME `{}`", path.escape_debug()))?;
    }
    // The parts that are mounted keep it.
    unmount(STORE, UnmountFlags::DETACH).doing("cannot let go of the volumes")
}

fn volume(root: &OwnedFd, path: &str, inside: &Path) -> io::Result<()> {
    let folder = folder(root, path)?;
    let place = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    // Through the link, which is not one to follow by its text.
    let found = fs::metadata(&place)?;
    fs::create_dir(inside)?;
    let mut links = HashMap::new();
    move_entries(&place, inside, &mut links).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => io::Error::other(
            "the image's files at this path need more memory than the enclave has for volumes",
        ),
        _ => error,
    })?;
    settle(inside, &found)?;
    mount_bind(inside, &place)?;
    Ok(())
}

/// The folder at `path` of the image; made as Docker makes it, root's with mode 0755, when absent.
fn folder(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = ".".to_owned();
    let mut parent = openat(root, ".", flags, Mode::empty())?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        at = format!("{at}/{part}");
        let opened = || openat2(root, &at, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        parent = match opened() {
            Err(Errno::NOENT) => {
                mkdirat(&parent, part, Mode::from_raw_mode(0o755))?;
                let made = opened()?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                made
            }
            result => result?,
        };
    }
    Ok(parent)
}

/// Moves what is in `from` into `to`, which is on another file system. Links between two names in the
/// volume stay, by `links`; those that lead out of it end, as in Docker.
fn move_entries(from: &Path, to: &Path, links: &mut HashMap<u64, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        let found = fs::symlink_metadata(&old)?;
        let kind = found.file_type();
        if kind.is_dir() {
            fs::create_dir(&new)?;
            move_entries(&old, &new, links)?;
            settle(&new, &found)?;
            fs::remove_dir(&old)?;
            continue;
        }
        if let Some(first) = links.get(&found.ino()) {
            fs::hard_link(first, &new)?;
        } else {
            make(&old, &new, kind)?;
            settle(&new, &found)?;
            if found.nlink() > 1 {
                links.insert(found.ino(), new);
            }
        }
        fs::remove_file(&old)?;
    }
    Ok(())
}

fn make(old: &Path, new: &Path, kind: fs::FileType) -> io::Result<()> {
    if kind.is_file() {
        io::copy(&mut File::open(old)?, &mut File::create_new(new)?)?;
        Ok(())
    } else if kind.is_symlink() {
        symlink(fs::read_link(old)?, new)
    } else if kind.is_fifo() {
        Ok(mknodat(
            CWD,
            new,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )?)
    } else {
        // The builder lets neither devices nor sockets into an image.
        let name = old.file_name().unwrap_or_default();
        Err(io::Error::other(format!(
            "`{}` is neither a file nor a folder",
            name.display()
        )))
    }
}

/// Owner, mode and time of what was found.
fn settle(path: &Path, found: &fs::Metadata) -> io::Result<()> {
    lchown(path, Some(found.uid()), Some(found.gid()))?;
    if !found.file_type().is_symlink() {
        // After the change of owner, which clears the set-id bits.
        fs::set_permissions(path, Permissions::from_mode(found.mode() & 0o7777))?;
    }
    let time = Timespec {
        tv_sec: found.mtime(),
        tv_nsec: found.mtime_nsec(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let path: &OsStr = path.as_os_str();
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of this test alone, gone at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_moved_keeps_its_mode_time_and_links_and_leaves_its_place() {
        let scratch = Scratch::new("volumes-move");
        let (from, to) = (scratch.0.join("from"), scratch.0.join("to"));
        fs::create_dir_all(from.join("deep/empty")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("deep/file"), b"content").unwrap();
        fs::set_permissions(from.join("deep/file"), Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(from.join("deep"), Permissions::from_mode(0o1770)).unwrap();
        fs::hard_link(from.join("deep/file"), from.join("twin")).unwrap();
        symlink("/nowhere", from.join("link")).unwrap();
        let before = fs::metadata(from.join("twin")).unwrap();

        move_entries(&from, &to, &mut HashMap::new()).unwrap();

        let file = fs::metadata(to.join("deep/file")).unwrap();
        assert_eq!(fs::read(to.join("twin")).unwrap(), b"content");
        assert_eq!(file.mode() & 0o7777, 0o640);
        assert_eq!(
            (file.mtime(), file.mtime_nsec()),
            (before.mtime(), before.mtime_nsec())
        );
        assert_eq!(file.ino(), fs::metadata(to.join("twin")).unwrap().ino());
        assert_eq!(
            fs::metadata(to.join("deep")).unwrap().mode() & 0o7777,
            0o1770
        );
        assert!(to.join("deep/empty").is_dir());
        assert_eq!(
            fs::read_link(to.join("link")).unwrap(),
            Path::new("/nowhere")
        );
        assert_eq!(fs::read_dir(&from).unwrap().count(), 0);
    }

    /// `/var/run` is a link in most images; one with an absolute target leads into the image too.
    #[test]
    fn a_path_is_resolved_inside_the_root_and_made_when_it_is_absent() {
        let scratch = Scratch::new("volumes-resolve");
        fs::create_dir_all(scratch.0.join("run/inner")).unwrap();
        fs::create_dir(scratch.0.join("var")).unwrap();
        symlink("/run", scratch.0.join("var/run")).unwrap();
        symlink("../../../../run", scratch.0.join("up")).unwrap();
        fs::write(scratch.0.join("file"), b"").unwrap();
        let root = OwnedFd::from(File::open(&scratch.0).unwrap());
        let number = |path: &str| {
            let fd = folder(&root, path).map(File::from)?;
            fd.metadata().map(|found| found.ino())
        };
        let inner = fs::metadata(scratch.0.join("run/inner")).unwrap().ino();
        assert_eq!(number("/run/inner").unwrap(), inner);
        assert_eq!(number("/var/run/inner").unwrap(), inner);
        assert_eq!(number("/up/inner").unwrap(), inner);
        number("/var/run/new/deep").unwrap();
        let made = fs::metadata(scratch.0.join("run/new")).unwrap();
        assert_eq!(made.mode() & 0o7777, 0o755);
        assert!(scratch.0.join("run/new/deep").is_dir());
        number("/file").unwrap_err();
        number("/file/below").unwrap_err();
    }
}
