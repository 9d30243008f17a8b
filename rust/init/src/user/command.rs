//! Which program `argv[0]` names: as `execvp` finds it, in the image's PATH.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The paths to try, in order. A name with a slash is a path already, relative to the working folder;
/// an empty part of PATH is the working folder.
pub fn candidates(name: &str, path: &[u8]) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![PathBuf::from(name)];
    }
    path.split(|&byte| byte == b':')
        .map(|folder| {
            let folder = if folder.is_empty() { b"." } else { folder };
            Path::new(OsStr::from_bytes(folder)).join(name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_looked_up_and_a_path_is_not() {
        let found = candidates("app", b"/usr/bin:/bin:");
        assert_eq!(
            found,
            ["/usr/bin/app", "/bin/app", "./app"].map(PathBuf::from)
        );
        assert_eq!(candidates("./app", b"/bin"), [PathBuf::from("./app")]);
    }
}
