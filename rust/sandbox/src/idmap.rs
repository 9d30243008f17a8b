//! Which user and group ids exist inside the sandbox, and who they are outside.
//!
//! Root maps a range of ids that belong to nobody; a user maps its own id and, where the system
//! grants one in `/etc/subuid` and `/etc/subgid`, a range. Without a range only root exists inside,
//! and images that need another user are refused by name.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, getgid, getuid};

use crate::error::{Doing, SandboxError};

/// First outer id of the range that root maps.
pub const ROOT_RANGE_START: u32 = 1_000_000;
/// Most ids that exist inside.
pub const RANGE_IDS: u32 = 65_536;

/// How ids inside stand for ids outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdMap {
    /// Written by ourselves, as root: one range of ids.
    Direct(Range),
    /// Only root exists inside; it is the caller.
    Single,
    /// Written by `newuidmap` and `newgidmap`: root is the caller, the rest are the granted ranges.
    Tools {
        /// Granted user ids.
        uids: Range,
        /// Granted group ids.
        gids: Range,
    },
}

/// A range of outer ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

impl IdMap {
    /// What this process may map.
    pub fn choose() -> Self {
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        if uid == 0 {
            let mapped = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            if let Some(range) = range_for_root(&mapped) {
                return Self::Direct(range);
            }
        }
        let name = user_name(&fs::read_to_string("/etc/passwd").unwrap_or_default(), uid);
        let granted = |file, id| {
            let text = fs::read_to_string(file).unwrap_or_default();
            granted_range(&text, name.as_deref(), id)
        };
        match (granted("/etc/subuid", uid), granted("/etc/subgid", uid)) {
            (Some(uids), Some(gids)) if uid != 0 && has_tools() => Self::Tools { uids, gids },
            _ => {
                let _ = gid;
                Self::Single
            }
        }
    }

    /// Number of ids that exist inside.
    pub fn count(&self) -> u32 {
        match self {
            Self::Direct(range) => range.count,
            Self::Single => 1,
            Self::Tools { uids, gids } => uids.count.min(gids.count).saturating_add(1),
        }
    }

    /// Outer id of root inside; `None` when it is the caller.
    pub fn outer_root(&self) -> Option<u32> {
        match self {
            Self::Direct(range) => Some(range.start),
            Self::Single | Self::Tools { .. } => None,
        }
    }

    /// Gives the map to the process `pid`, which is in a fresh user namespace.
    ///
    /// # Errors
    ///
    /// The system, `newuidmap` or `newgidmap` refused.
    pub fn write(&self, pid: Pid) -> Result<(), SandboxError> {
        let process = format!("/proc/{}", pid.as_raw_nonzero());
        let put = |file: &str, text: &str| {
            fs::write(Path::new(&process).join(file), text).doing(|| format!("cannot write {file}"))
        };
        match self {
            Self::Direct(range) => {
                let line = format!("0 {} {}\n", range.start, range.count);
                put("uid_map", &line)?;
                put("gid_map", &line)
            }
            Self::Single => {
                put("setgroups", "deny")?;
                put("uid_map", &format!("0 {} 1\n", getuid().as_raw()))?;
                put("gid_map", &format!("0 {} 1\n", getgid().as_raw()))
            }
            Self::Tools { uids, gids } => {
                tool("newuidmap", pid, getuid().as_raw(), *uids)?;
                tool("newgidmap", pid, getgid().as_raw(), *gids)
            }
        }
    }
}

fn tool(name: &str, pid: Pid, own: u32, range: Range) -> Result<(), SandboxError> {
    let numbers = [0, own, 1, 1, range.start, range.count];
    let done = Command::new(name)
        .arg(pid.as_raw_nonzero().to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .output()
        .doing(|| format!("cannot run {name}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr)
        .trim()
        .escape_debug()
        .to_string();
    Err(SandboxError::new(format!("{name} refused: {said}")).hint(
        "the ranges in /etc/subuid and /etc/subgid must be this user's, and newuidmap set-user-id",
    ))
}

fn has_tools() -> bool {
    let found = |name: &str| {
        std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
        })
    };
    found("newuidmap") && found("newgidmap")
}

/// The range that root may take, given its own `/proc/self/uid_map`: [`ROOT_RANGE_START`] on a
/// plain machine, and in a container with fewer ids the ones above root.
fn range_for_root(uid_map: &str) -> Option<Range> {
    let (_, count) = uid_map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (first, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        (first == Ok(0)).then_some((0, count.ok()?))
    })?;
    let start = if count >= ROOT_RANGE_START.saturating_add(RANGE_IDS) {
        ROOT_RANGE_START
    } else {
        1
    };
    let count = count.saturating_sub(start).min(RANGE_IDS);
    (count > 1).then_some(Range { start, count })
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The longest range that a file in the format of subuid(5) grants.
fn granted_range(text: &str, name: Option<&str>, id: u32) -> Option<Range> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let start = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            let is_ours = Some(owner) == name || owner.parse() == Ok(id);
            (is_ours && count > 0).then(|| Range {
                start,
                count: count.min(RANGE_IDS.saturating_sub(1)),
            })
        })
        .max_by_key(|range| range.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_takes_ids_that_belong_to_nobody() {
        let range = range_for_root("         0          0 4294967295\n").unwrap();
        assert_eq!((range.start, range.count), (1_000_000, 65_536));
    }

    /// As in a rootless container: 65536 ids, of which the first is root itself.
    #[test]
    fn root_of_a_container_takes_what_it_has() {
        let range = range_for_root("0 1000 1\n").map(|range| range.count);
        assert_eq!(range, None);
        let range = range_for_root("0 100000 65536\n").unwrap();
        assert_eq!((range.start, range.count), (1, 65_535));
    }

    #[test]
    fn a_grant_is_found_by_name_or_by_id() {
        let text = "other:1:2\nme:100000:65536\n1001:5:10\n";
        let range = granted_range(text, Some("me"), 1000).unwrap();
        assert_eq!((range.start, range.count), (100_000, 65_535));
        assert_eq!(granted_range(text, None, 1001).unwrap().start, 5);
        assert_eq!(granted_range(text, Some("you"), 1002), None);
    }

    #[test]
    fn the_name_of_a_user_is_found() {
        let passwd = "root:x:0:0:::\nme:x:1000:1000:::\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("me"));
        assert_eq!(user_name(passwd, 7), None);
    }
}
