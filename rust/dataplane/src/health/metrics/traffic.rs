//! What the engine counts, as metrics.

use super::{head, line, one};
use crate::server::traffic::{
    Handshake, HandshakeFailure, LATENCY_MICROS, Reason, StatusGroup, TrafficStats, UpstreamError,
    UpstreamUse,
};

/// Appends everything.
pub(super) fn write(out: &mut String, stats: &TrafficStats) {
    for (name, help, value) in [
        (
            "connections_total",
            "Connections accepted.",
            stats.connections,
        ),
        (
            "connections_shed_total",
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
            "proxy_headers_refused_total",
            "Connections closed for want of a good PROXY header.",
            stats.refused_headers,
        ),
        (
            "fields_opened_total",
            "Encrypted fields opened.",
            stats.fields_opened,
        ),
        (
            "key_cache_hits_total",
            "Encrypted fields whose key was derived before.",
            stats.key_hits,
        ),
        (
            "keys_derived_total",
            "Keys derived from an ephemeral key: one ECDH each.",
            stats.keys_derived,
        ),
        (
            "received_bytes_total",
            "Bytes of bodies and sessions from clients, after TLS where it ends here.",
            stats.bytes_in,
        ),
        (
            "sent_bytes_total",
            "Bytes to clients, before TLS where it ends here.",
            stats.bytes_out,
        ),
    ] {
        one(out, (&format!("cloister_{name}"), "counter"), help, value);
    }
    for (name, help, value) in [
        (
            "connections_open",
            "Connections open.",
            stats.active_connections,
        ),
        (
            "connections_waiting",
            "Connections without a whole ClientHello, or whose handshake stands still.",
            stats.waiting,
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
        (
            "key_cache_keys",
            "Derived keys that are kept, as of the last second.",
            stats.keys_kept,
        ),
    ] {
        one(out, (&format!("cloister_{name}"), "gauge"), help, value);
    }
    for (name, help, label, names, values) in [
        (
            "responses_total",
            "Requests that ended, by the group of their status.",
            "status",
            StatusGroup::NAMES.as_slice(),
            stats.responses.as_slice(),
        ),
        (
            "refusals_total",
            "Requests that the data plane itself answered with an error, by its reason.",
            "reason",
            &Reason::NAMES,
            &stats.refusals,
        ),
        (
            "handshakes_failed_total",
            "TLS handshakes that did not end well, by the reason.",
            "reason",
            &HandshakeFailure::NAMES,
            &stats.handshake_failures,
        ),
        (
            "upstream_errors_total",
            "Errors of the user process, by their kind.",
            "kind",
            &UpstreamError::NAMES,
            &stats.upstream_errors,
        ),
        (
            "upstream_connections_total",
            "Connections taken for a request, by where they came from.",
            "source",
            &UpstreamUse::NAMES,
            &stats.upstream_uses,
        ),
    ] {
        let name = format!("cloister_{name}");
        head(out, &name, "counter", help);
        for (value_of, value) in names.iter().zip(values) {
            line(out, &name, &format!("{{{label}=\"{value_of}\"}}"), value);
        }
    }
    handshakes(out, stats);
    latency(out, stats);
}

fn handshakes(out: &mut String, stats: &TrafficStats) {
    let name = "cloister_handshakes_total";
    let help = "TLS handshakes that ended well, by their kind and version.";
    head(out, name, "counter", help);
    for (kind, value) in Handshake::NAMES.iter().zip(stats.handshakes) {
        let (kind, version) = kind.split_once(',').unwrap_or((kind, ""));
        let labels = format!("{{kind=\"{kind}\",version=\"{version}\"}}");
        line(out, name, &labels, value);
    }
}

/// A histogram: buckets add up, and the last holds all (exposition format 0.0.4).
fn latency(out: &mut String, stats: &TrafficStats) {
    let name = "cloister_request_duration_seconds";
    let help = "From the end of a request's head to the end of its answer.";
    head(out, name, "histogram", help);
    let mut sum = 0_u64;
    let ends = LATENCY_MICROS.iter().map(|end| seconds(*end));
    let ends = ends.chain(["+Inf".to_owned()]);
    for (end, count) in ends.zip(stats.latency) {
        sum = sum.saturating_add(count);
        let labels = format!("{{le=\"{end}\"}}");
        line(out, &format!("{name}_bucket"), &labels, sum);
    }
    line(
        out,
        &format!("{name}_sum"),
        "",
        seconds(stats.latency_micros),
    );
    line(out, &format!("{name}_count"), "", sum);
}

/// Microseconds as seconds, without zeros at the end.
fn seconds(micros: u64) -> String {
    let whole = micros.checked_div(1_000_000).unwrap_or(0);
    let rest = format!("{whole}.{:06}", micros % 1_000_000);
    let trimmed = rest.trim_end_matches('0').trim_end_matches('.');
    trimmed.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_seconds() {
        for (micros, text) in [
            (0, "0"),
            (100, "0.0001"),
            (2_500_000, "2.5"),
            (30_000_000, "30"),
            (1, "0.000001"),
        ] {
            assert_eq!(seconds(micros), text);
        }
    }

    #[test]
    fn the_buckets_of_the_histogram_add_up() {
        let mut stats = TrafficStats::default();
        (stats.latency[0], stats.latency[3], stats.latency[17]) = (2, 5, 1);
        stats.latency_micros = 1_500_000;
        let mut out = String::new();
        latency(&mut out, &stats);
        for expected in [
            "_bucket{le=\"0.0001\"} 2\n",
            "_bucket{le=\"0.0005\"} 2\n",
            "_bucket{le=\"0.001\"} 7\n",
            "_bucket{le=\"30\"} 7\n",
            "_bucket{le=\"+Inf\"} 8\n",
            "_sum 1.5\n",
            "_count 8\n",
        ] {
            assert!(out.contains(expected), "{expected}: {out}");
        }
    }
}
