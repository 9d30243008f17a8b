//! Gauges of the machine, read from `/proc` when they are asked for.

use super::metrics::{head, line, one};

/// Memory, processor time by core, and descriptors. What cannot be read is left out.
pub(super) fn write(out: &mut String) {
    memory(out, &read("/proc/meminfo"));
    processors(out, &read("/proc/stat"));
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
    let name = "cloister_cpu_busy_ticks_total";
    head(
        out,
        name,
        "counter",
        "Time a core was busy, in hundredths of a second.",
    );
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
        line(out, name, &format!("{{core=\"{core}\"}}"), busy);
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
        assert!(out.contains("{core=\"0\"} 21\n"), "{out}");
        assert!(out.contains("{core=\"1\"} 3\n"), "{out}");
        assert_eq!(out.matches("core=").count(), 2, "{out}");
    }

    #[test]
    fn the_soft_limit_of_descriptors_is_found() {
        let limits = "Limit  Soft  Hard  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(descriptor_limit(limits), Some(1024));
    }
}
