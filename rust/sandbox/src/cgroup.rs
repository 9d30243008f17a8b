//! Memory and processor limits of the enclave as a whole, by control groups, where permitted.
//!
//! Version 1 and version 2 are tried as this process finds itself in them; a limit that cannot be
//! set is reported, not fatal: the root file system is bounded in any case.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

/// Period of the processor quota, microseconds (the kernel's default).
const CPU_PERIOD_US: u64 = 100_000;

/// The groups made for one enclave.
#[derive(Debug, Default)]
pub struct Groups {
    paths: Vec<PathBuf>,
}

impl Groups {
    /// Makes groups with the limits and puts `pid` in; the second value names each limit that could
    /// not be set, and why.
    pub fn limit(pid: Pid, memory_bytes: Option<u64>, cpus: Option<u32>) -> (Self, Vec<String>) {
        let mut groups = Self::default();
        let mut skipped = Vec::new();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let quota = cpus.map(|cpus| u64::from(cpus).saturating_mul(CPU_PERIOD_US));
        let limits = [
            ("memory", memory_bytes.map(settings_for_memory)),
            ("cpu", quota.map(settings_for_cpu)),
        ];
        for (controller, settings) in limits {
            let Some(settings) = settings else { continue };
            if let Err(why) = groups.apply(pid, controller, &settings, &own, &mounts) {
                skipped.push(format!("{controller} limit: {why}"));
            }
        }
        (groups, skipped)
    }

    fn apply(
        &mut self,
        pid: Pid,
        controller: &str,
        settings: &Settings,
        own: &str,
        mounts: &str,
    ) -> Result<(), String> {
        let (parent, is_v1) = parent_group(controller, own, mounts)
            .ok_or_else(|| "no such control group here".to_owned())?;
        let group = parent.join(format!("cloister-{}", pid.as_raw_nonzero()));
        if !self.paths.contains(&group) {
            fs::create_dir(&group).map_err(|error| error.to_string())?;
            self.paths.push(group.clone());
        }
        let (files, number) = (
            if is_v1 { &settings.v1 } else { &settings.v2 },
            pid.as_raw_nonzero(),
        );
        for (file, value) in files {
            fs::write(group.join(file), value).map_err(|error| format!("{file}: {error}"))?;
        }
        fs::write(group.join("cgroup.procs"), number.to_string())
            .map_err(|error| format!("cgroup.procs: {error}"))
    }

    /// Removes the groups; their processes are ending, which may take a moment.
    pub fn remove(&mut self) {
        for path in self.paths.drain(..) {
            for _ in 0..REMOVE_ATTEMPTS {
                match fs::remove_dir(&path) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(REMOVE_PAUSE);
                    }
                    _ => break,
                }
            }
        }
    }
}

struct Settings {
    v1: Vec<(&'static str, String)>,
    v2: Vec<(&'static str, String)>,
}

fn settings_for_memory(bytes: u64) -> Settings {
    Settings {
        v1: vec![("memory.limit_in_bytes", bytes.to_string())],
        v2: vec![
            ("memory.max", bytes.to_string()),
            ("memory.swap.max", "0".into()),
        ],
    }
}

fn settings_for_cpu(quota_us: u64) -> Settings {
    Settings {
        v1: vec![
            ("cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
            ("cpu.cfs_quota_us", quota_us.to_string()),
        ],
        v2: vec![("cpu.max", format!("{quota_us} {CPU_PERIOD_US}"))],
    }
}

/// The folder of the group this process is in, for a controller, and whether it is version 1.
/// `own` is `/proc/self/cgroup`, `mounts` is `/proc/self/mountinfo`.
fn parent_group(controller: &str, own: &str, mounts: &str) -> Option<(PathBuf, bool)> {
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some((controllers.to_owned(), path.to_owned()))
    };
    let groups: Vec<_> = own.lines().filter_map(of_line).collect();
    let v1 = groups
        .iter()
        .find(|(names, _)| names.split(',').any(|name| name == controller));
    let (path, is_v1) = match v1 {
        Some((_, path)) => (path, true),
        None => (&groups.iter().find(|(names, _)| names.is_empty())?.1, false),
    };
    let point = mounts.lines().find_map(|line| {
        // "36 35 98:0 / /mnt rw - cgroup cgroup rw,memory": root, mount point, then after " - " the
        // type and the options.
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(3);
        let (root, point) = (head.next()?, head.next()?);
        let mut tail = tail.split(' ');
        let (kind, _, options) = (tail.next()?, tail.next()?, tail.next()?);
        let fits = if is_v1 {
            kind == "cgroup" && options.split(',').any(|name| name == controller)
        } else {
            kind == "cgroup2"
        };
        let below = path.strip_prefix(root.trim_end_matches('/'))?;
        fits.then(|| Path::new(point).join(below.trim_start_matches('/')))
    })?;
    Some((point, is_v1))
}

const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/x\n";
    const MOUNTS: &str = "30 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        31 1 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 1 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_group_is_found_in_either_version() {
        let (path, is_v1) = parent_group("memory", V1, MOUNTS).unwrap();
        assert_eq!(
            (path.as_path(), is_v1),
            (Path::new("/sys/fs/cgroup/memory/a/b"), true)
        );
        let (path, is_v1) = parent_group("memory", "0::/user/me\n", MOUNTS).unwrap();
        let expected = Path::new("/sys/fs/cgroup/unified/user/me");
        assert_eq!((path.as_path(), is_v1), (expected, false));
        assert_eq!(parent_group("memory", V1, ""), None);
    }
}
