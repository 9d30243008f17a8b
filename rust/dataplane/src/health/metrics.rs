//! The board in the text format of Prometheus (version 0.0.4).

mod traffic;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use cloister_wire::health::State;

use super::{Board, system};

/// Everything on the board, and the gauges of the system, because nobody can log in to look.
pub(super) fn text(board: &Board) -> String {
    let health = board.health();
    let mut out = String::with_capacity(4096);
    let states = [
        ("starting", State::Starting),
        ("provisioning", State::Provisioning),
        ("ready", State::Ready),
        ("draining", State::Draining),
        ("failed", State::Failed),
    ];
    head(
        &mut out,
        "cloister_build_info",
        "gauge",
        "1; the version of the data plane is its label.",
    );
    let version = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    line(&mut out, "cloister_build_info", version, 1);
    head(
        &mut out,
        "cloister_state",
        "gauge",
        "1 for the state the enclave is in.",
    );
    for (name, state) in states {
        let labels = format!("{{state=\"{name}\"}}");
        line(
            &mut out,
            "cloister_state",
            &labels,
            u8::from(health.state == state),
        );
    }
    let process = match health.process_healthy {
        Some(true) => 1,
        Some(false) => 0,
        None => -1,
    };
    one(
        &mut out,
        ("cloister_process_healthy", "gauge"),
        "1 healthy, 0 not, -1 not known yet.",
        process,
    );
    one(
        &mut out,
        ("cloister_process_restarts_total", "counter"),
        "Starts of the user process after the first.",
        health.process_restarts,
    );
    let live = board.live.load();
    one(
        &mut out,
        ("cloister_bundle_version", "gauge"),
        "Version of the bundle in use; 0 when there is none.",
        live.bundle_version,
    );
    one(
        &mut out,
        ("cloister_bundle_not_after_seconds", "gauge"),
        "End of the bundle in use, seconds since 1970.",
        live.not_after_ms.checked_div(1_000).unwrap_or(0),
    );
    drop(live);
    let stats = &board.provision_stats;
    by_outcome(
        &mut out,
        "cloister_bundles_total",
        "Bundles by what became of them.",
        &[
            ("accepted", &stats.accepted),
            ("refused", &stats.refused),
            ("ended", &stats.ended),
            ("failed", &stats.failed),
        ],
    );
    let stats = &board.object_stats;
    by_outcome(
        &mut out,
        "cloister_sealed_objects_total",
        "Sealed objects at the host by what became of them; refused is not what was recorded.",
        &[
            ("finished", &stats.finished),
            ("missing", &stats.missing),
            ("refused", &stats.refused),
            ("used", &stats.used),
            ("written", &stats.written),
        ],
    );
    by_outcome(
        &mut out,
        "cloister_sealed_object_heads_total",
        "Heads of sealed objects that this enclave asked the platform to record.",
        &[
            ("failed", &stats.heads_failed),
            ("overtaken", &stats.heads_overtaken),
            ("recorded", &stats.heads_recorded),
        ],
    );
    one(
        &mut out,
        ("cloister_certificate_not_after_seconds", "gauge"),
        "End of the TLS certificate in use, seconds since 1970.",
        health.certificate_not_after.unwrap_or(0),
    );
    let offset_ms = health.clock_offset_ms;
    one(
        &mut out,
        ("cloister_clock_offset_seconds", "gauge"),
        "How far the clock in use is from the system's, which the host sets.",
        seconds(offset_ms),
    );
    head(
        &mut out,
        "cloister_service_up",
        "gauge",
        "1 for a service that runs, 0 for one that has failed.",
    );
    for (name, is_up) in &health.services {
        let labels = format!("{{service=\"{name}\"}}");
        line(&mut out, "cloister_service_up", &labels, u8::from(*is_up));
    }
    let logs = board.logs.stats();
    one(
        &mut out,
        ("cloister_log_ring_records", "gauge"),
        "Transaction log records that the host does not have.",
        logs.records,
    );
    one(
        &mut out,
        ("cloister_log_ring_bytes", "gauge"),
        "Their size.",
        logs.bytes,
    );
    one(
        &mut out,
        ("cloister_log_ring_limit_bytes", "gauge"),
        "Size over which the oldest of them are dropped.",
        logs.limit,
    );
    one(
        &mut out,
        ("cloister_log_records_dropped_total", "counter"),
        "Records dropped for want of room.",
        logs.dropped,
    );
    one(
        &mut out,
        ("cloister_log_records_acked_total", "counter"),
        "Records that the host has.",
        logs.acked,
    );
    traffic::write(&mut out, &board.traffic.stats());
    system::write(&mut out);
    out
}

/// Milliseconds as seconds.
fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    let whole = ms.checked_div(1_000).unwrap_or(0);
    format!("{sign}{whole}.{:03}", ms % 1_000)
}

/// A metric with one value.
pub(super) fn one(
    out: &mut String,
    (name, kind): (&str, &str),
    help: &str,
    value: impl std::fmt::Display,
) {
    head(out, name, kind, help);
    line(out, name, "", value);
}

/// A counter with one label.
fn by_outcome(out: &mut String, name: &str, help: &str, counters: &[(&str, &AtomicU64)]) {
    head(out, name, "counter", help);
    for (outcome, counter) in counters {
        let labels = format!("{{outcome=\"{outcome}\"}}");
        line(out, name, &labels, counter.load(Ordering::Relaxed));
    }
}

/// The two comment lines of a metric.
pub(super) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One value.
pub(super) fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _infallible = writeln!(out, "{name}{labels} {value}");
}
