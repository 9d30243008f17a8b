//! The board in the text format of Prometheus (version 0.0.4).

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use cloister_wire::health::State;

use super::{Board, system};
use crate::server::traffic::TrafficStats;

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
    head(
        &mut out,
        "cloister_bundles_total",
        "counter",
        "Bundles by what became of them.",
    );
    for (name, counter) in [
        ("accepted", &stats.accepted),
        ("refused", &stats.refused),
        ("ended", &stats.ended),
        ("failed", &stats.failed),
    ] {
        let labels = format!("{{outcome=\"{name}\"}}");
        let value = counter.load(Ordering::Relaxed);
        line(&mut out, "cloister_bundles_total", &labels, value);
    }
    one(
        &mut out,
        ("cloister_certificate_not_after_seconds", "gauge"),
        "End of the TLS certificate in use, seconds since 1970.",
        health.certificate_not_after.unwrap_or(0),
    );
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
    traffic(&mut out, &board.traffic.stats());
    system::write(&mut out);
    out
}

fn traffic(out: &mut String, stats: &TrafficStats) {
    for (name, help, value) in [
        (
            "connections_total",
            "Connections accepted.",
            stats.connections,
        ),
        (
            "failed_handshakes_total",
            "TLS handshakes that failed or took too long.",
            stats.failed_handshakes,
        ),
        (
            "shed_total",
            "Connections closed because there were too many.",
            stats.shed,
        ),
        ("requests_total", "Requests begun.", stats.requests),
        (
            "websockets_total",
            "WebSocket sessions begun.",
            stats.websockets,
        ),
        (
            "sessions_total",
            "Raw sessions begun: TCP inside TLS, or TLS passed through.",
            stats.sessions,
        ),
        (
            "refused_headers_total",
            "Connections closed for want of a good PROXY header.",
            stats.refused_headers,
        ),
        (
            "refused_total",
            "Requests answered with an error of the data plane, and raw sessions closed at once.",
            stats.refused,
        ),
        (
            "fields_opened_total",
            "Encrypted fields opened.",
            stats.fields_opened,
        ),
        (
            "bytes_in_total",
            "Bytes from clients, after TLS where it ends here.",
            stats.bytes_in,
        ),
        (
            "bytes_out_total",
            "Bytes to clients, before TLS where it ends here.",
            stats.bytes_out,
        ),
    ] {
        let name = format!("cloister_{name}");
        one(out, (&name, "counter"), help, value);
    }
    for (name, help, value) in [
        (
            "connections_open",
            "Connections open.",
            stats.active_connections,
        ),
        (
            "requests_open",
            "Requests in flight.",
            stats.active_requests,
        ),
        (
            "websockets_open",
            "WebSocket sessions open.",
            stats.active_websockets,
        ),
        ("sessions_open", "Raw sessions open.", stats.active_sessions),
    ] {
        let name = format!("cloister_{name}");
        one(out, (&name, "gauge"), help, value);
    }
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

/// The two comment lines of a metric.
pub(super) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One value.
pub(super) fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _infallible = writeln!(out, "{name}{labels} {value}");
}
