//! Writes the ramdisks into the root of the sandbox, once nothing else is in reach.
//!
//! Every file is made anew (`O_EXCL`), owners must exist in the sandbox, and running out of memory
//! is an error here, unlike in a kernel that unpacks its initramfs and says nothing.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::Path;

use crate::cpio::{Content, Entry, Reader};
use crate::error::SandboxError;

/// Names at the top that belong to the sandbox itself.
const RESERVED: [&[u8]; 5] = [b"dev", b"proc", b"run", b"sys", b"tmp"];

/// Unpacks `ramdisks`, one after the other, into the folder `root`. Ids from `ids` on do not exist.
///
/// # Errors
///
/// An archive is refused, an owner does not exist, or the memory does not suffice.
pub fn unpack(ramdisks: &[&[u8]], root: &Path, ids: u32) -> Result<(), SandboxError> {
    let mut reader = Reader::default();
    for ramdisk in ramdisks {
        let entries = reader.entries(ramdisk).map_err(|error| {
            SandboxError::image(error.to_string())
                .hint("build the image again with `cloister build`")
        })?;
        for entry in &entries {
            check(entry, ids)?;
        }
        for entry in &entries {
            make(entry, root).map_err(|error| explain(entry, &error))?;
        }
    }
    Ok(())
}

fn check(entry: &Entry<'_>, ids: u32) -> Result<(), SandboxError> {
    let top = entry.name.split(|&byte| byte == b'/').next();
    if top.is_some_and(|top| RESERVED.contains(&top)) {
        return Err(SandboxError::image(format!(
            "ramdisk entry `{}` lies in a folder that init makes itself",
            entry.name.escape_ascii()
        )));
    }
    let highest = entry.uid.max(entry.gid);
    if highest < ids {
        return Ok(());
    }
    let error = SandboxError::image(format!(
        "`{}` in the image belongs to user {} and group {}, and only {ids} id(s) exist here",
        entry.name.escape_ascii(),
        entry.uid,
        entry.gid
    ));
    Err(error.hint(HINT_IDS))
}

/// Refuses an image whose process is another user than root where no other user exists. `process` is
/// the image's `process.json`; what it says otherwise is init's to judge.
///
/// # Errors
///
/// USER is not root.
pub fn check_user(process: &[u8], ids: u32) -> Result<(), SandboxError> {
    let process: serde_json::Value = serde_json::from_slice(process).unwrap_or_default();
    let user = process
        .get("user")
        .and_then(|user| user.as_str())
        .unwrap_or_default();
    let is_root = user
        .split(':')
        .all(|part| matches!(part, "" | "0" | "root"));
    if ids > 1 || is_root {
        return Ok(());
    }
    Err(SandboxError::image(format!(
        "USER of the image is `{}`, and only root exists here",
        user.escape_debug()
    ))
    .hint(HINT_IDS))
}

/// What to do when an image needs more users than there are.
pub const HINT_IDS: &str = "run as root, or give this user a range in /etc/subuid and /etc/subgid \
     (for example `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`) and \
     install newuidmap (Debian: uidmap)";

fn make(entry: &Entry<'_>, root: &Path) -> std::io::Result<()> {
    let path = root.join(std::ffi::OsStr::from_bytes(entry.name));
    let mode = fs::Permissions::from_mode(entry.mode);
    match entry.content {
        Content::Directory => {
            fs::create_dir(&path)?;
            lchown(&path, Some(entry.uid), Some(entry.gid))?;
            // The folder was made just above, and nobody else is here: it is no link.
            fs::set_permissions(&path, mode)
        }
        Content::File(bytes) => {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(bytes)?;
            fchown(&file, Some(entry.uid), Some(entry.gid))?;
            // After the change of owner, which clears the set-id bits.
            file.set_permissions(mode)
        }
        Content::Link { to, bytes } => {
            fs::hard_link(root.join(std::ffi::OsStr::from_bytes(to)), &path)?;
            if !bytes.is_empty() {
                fs::OpenOptions::new()
                    .write(true)
                    .truncate(true)
                    .open(&path)?
                    .write_all(bytes)?;
            }
            Ok(())
        }
        Content::Symlink(target) => {
            symlink(std::ffi::OsStr::from_bytes(target), &path)?;
            lchown(&path, Some(entry.uid), Some(entry.gid))
        }
    }
}

fn explain(entry: &Entry<'_>, error: &std::io::Error) -> SandboxError {
    let name = entry.name.escape_ascii();
    if error.raw_os_error() == Some(libc::ENOSPC) {
        return SandboxError::image(format!(
            "the image does not fit into the enclave's memory: no room for `{name}`"
        ))
        .hint("raise `memory` in [resources] of enclave.toml; half of it holds the image");
    }
    SandboxError::new(format!("cannot make `{name}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::tests::put;

    fn archive(records: &[(&str, u32, u32, &str)]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, mode, inode, bytes) in records {
            put(
                &mut archive,
                name.as_bytes(),
                *mode,
                *inode,
                bytes.as_bytes(),
            );
        }
        put(&mut archive, b"TRAILER!!!", 0, 0, b"");
        archive
    }

    /// Runs in a folder of its own, as whoever runs the tests; `lchown` to 0 needs root.
    fn unpacked(records: &[(&str, u32, u32, &str)]) -> Result<std::path::PathBuf, SandboxError> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("unpack-{}-{number}", std::process::id()));
        fs::create_dir(&root).unwrap();
        let result = unpack(&[&archive(records)], &root, 1).map(|()| root.clone());
        if result.is_err() {
            fs::remove_dir_all(&root).unwrap();
        }
        result
    }

    #[test]
    fn a_tree_is_made_with_modes_and_links() {
        if !rustix::process::getuid().is_root() {
            return; // Ownership cannot be set; the sandbox's own tests run this as a user.
        }
        let root = unpacked(&[
            ("rootfs", 0o040_755, 1, ""),
            ("rootfs/app", 0o104_755, 100, "code"),
            ("rootfs/same", 0o104_755, 100, ""),
            ("rootfs/away", 0o120_777, 2, "/etc/hostname"),
        ])
        .unwrap();
        let app = fs::metadata(root.join("rootfs/app")).unwrap();
        assert_eq!(app.permissions().mode() & 0o7777, 0o4755);
        assert_eq!(fs::read(root.join("rootfs/same")).unwrap(), b"code");
        let target = fs::read_link(root.join("rootfs/away")).unwrap();
        assert_eq!(target, Path::new("/etc/hostname"));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn another_user_is_refused_where_only_root_exists() {
        let said = |user: &str| format!(r#"{{"user":"{user}"}}"#).into_bytes();
        for user in ["", "root", "0", "0:0", "root:root"] {
            check_user(&said(user), 1).unwrap();
        }
        for user in ["app", "1000", "0:1000"] {
            let error = check_user(&said(user), 1).unwrap_err();
            assert!(
                error.message.contains(user) && error.hint.is_some(),
                "{error}"
            );
            check_user(&said(user), 2).unwrap();
        }
    }

    #[test]
    fn the_sandboxs_own_folders_are_not_the_images() {
        let error = unpacked(&[("proc", 0o040_755, 1, "")]).unwrap_err();
        assert!(error.message.contains("`proc`"), "{error}");
    }

    #[test]
    fn an_owner_that_does_not_exist_is_named_with_a_hint() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"a", 0o100_644, 1, b"");
        bytes[22..30].copy_from_slice(b"000003E8");
        put(&mut bytes, b"TRAILER!!!", 0, 0, b"");
        let error = unpack(&[&bytes], Path::new("/nonexistent"), 1).unwrap_err();
        assert!(error.message.contains("user 1000"), "{error}");
        assert!(error.hint.unwrap().contains("subuid"));
    }
}
