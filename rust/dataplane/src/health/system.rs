//! Gauges of the machine, read from `/proc` when they are asked for.

use super::metrics::{head, line, one};

/// Memory, processor time by core, and descriptors. What cannot be read is left out.
pub(super) fn write(out: &mut String) {
    memory(out, &read("/proc/meminfo"));
    processors(out, &read("/proc/stat"));
    process(out, &read("/proc/self/stat"), &read("/proc/self/status"));
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        one(
            out,
            ("cloister_descriptors_open", "gauge"),
            "Open descriptors of the data plane.",
            entries.count(),
        );
    }
    if let Some(limit) = descriptor_limit(&read("/proc/self/limits")) {
        one(
            out,
            ("cloister_descriptors_limit", "gauge"),
            "Limit of open descriptors.",
            limit,
        );
    }
}

fn memory(out: &mut String, meminfo: &str) {
    for (key, name, help) in [
        (
            "MemTotal:",
            "cloister_memory_total_bytes",
            "Memory of the enclave.",
        ),
        (
            "MemAvailable:",
            "cloister_memory_available_bytes",
            "Memory that can be had without swapping.",
        ),
        (
            "Shmem:",
            "cloister_memory_tmpfs_bytes",
            "Memory that files in tmpfs use.",
        ),
    ] {
        let row = meminfo.lines().find_map(|row| row.strip_prefix(key));
        let kibibytes = row.and_then(|row| row.split_whitespace().next()?.parse::<u64>().ok());
        if let Some(kibibytes) = kibibytes {
            one(out, (name, "gauge"), help, kibibytes.saturating_mul(1024));
        }
    }
}

fn processors(out: &mut String, stat: &str) {
    let name = "cloister_cpu_busy_seconds_total";
    head(out, name, "counter", "Time a core was busy.");
    for row in stat.lines().filter_map(|row| row.strip_prefix("cpu")) {
        let mut fields = row.split_whitespace();
        // The first row is the sum of all cores and has no number.
        let (Some(core), false) = (fields.next(), row.starts_with(' ')) else {
            continue;
        };
        let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        // proc(5): user, nice, system, idle, iowait, irq, softirq, steal, …
        let busy = [0, 1, 2, 5, 6, 7]
            .iter()
            .filter_map(|column: &usize| ticks.get(*column))
            .fold(0, |sum: u64, ticks| sum.saturating_add(*ticks));
        // USER_HZ is 100 on every architecture Nitro has (proc(5), sysconf(3)).
        let (whole, rest) = (busy.checked_div(100).unwrap_or(0), busy % 100);
        let seconds = format!("{whole}.{rest:02}");
        line(out, name, &format!("{{core=\"{core}\"}}"), seconds);
    }
}

/// What the data plane itself takes.
fn process(out: &mut String, stat: &str, status: &str) {
    // proc(5): the name is in parentheses and may hold any character; utime and stime are the 12th
    // and 13th field behind it.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest);
    let ticks: Option<u64> = fields.and_then(|rest| {
        let mut times = rest.split_whitespace().skip(11);
        let user: u64 = times.next()?.parse().ok()?;
        user.checked_add(times.next()?.parse().ok()?)
    });
    if let Some(ticks) = ticks {
        let (whole, rest) = (ticks.checked_div(100).unwrap_or(0), ticks % 100);
        one(
            out,
            ("cloister_process_cpu_seconds_total", "counter"),
            "Processor time of the data plane.",
            format!("{whole}.{rest:02}"),
        );
    }
    let row = status.lines().find_map(|row| row.strip_prefix("VmRSS:"));
    let kibibytes = row.and_then(|row| row.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(kibibytes) = kibibytes {
        one(
            out,
            ("cloister_process_resident_memory_bytes", "gauge"),
            "Memory of the data plane.",
            kibibytes.saturating_mul(1024),
        );
    }
}

fn descriptor_limit(limits: &str) -> Option<u64> {
    let row = limits
        .lines()
        .find(|row| row.starts_with("Max open files"))?;
    row.split_whitespace().nth(3)?.parse().ok()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_in_bytes() {
        let mut out = String::new();
        memory(&mut out, "MemTotal:  100 kB\nMemAvailable: 40 kB\n");
        assert!(
            out.contains("cloister_memory_total_bytes 102400\n"),
            "{out}"
        );
        assert!(
            out.contains("cloister_memory_available_bytes 40960\n"),
            "{out}"
        );
    }

    #[test]
    fn each_core_has_a_line_and_the_sum_has_none() {
        let mut out = String::new();
        processors(
            &mut out,
            "cpu  9 9 9 9\ncpu0 1 2 3 100 50 4 5 6 0 0\ncpu1 1 1 1 1\nintr 1\n",
        );
        assert!(out.contains("{core=\"0\"} 0.21\n"), "{out}");
        assert!(out.contains("{core=\"1\"} 0.03\n"), "{out}");
        assert_eq!(out.matches("core=").count(), 2, "{out}");
    }

    #[test]
    fn the_process_is_found_whatever_its_name_is() {
        let mut out = String::new();
        let stat = "7 (a) b) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        process(&mut out, stat, "Name:\tx\nVmRSS:\t  12 kB\n");
        assert!(out.contains("cpu_seconds_total 2.00\n"), "{out}");
        assert!(out.contains("resident_memory_bytes 12288\n"), "{out}");
    }

    #[test]
    fn the_soft_limit_of_descriptors_is_found() {
        let limits = "Limit  Soft  Hard  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(descriptor_limit(limits), Some(1024));
    }
}
