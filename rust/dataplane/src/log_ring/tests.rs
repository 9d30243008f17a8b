//! Bounds, order and numbering of the ring.

use super::*;

pub(crate) fn log(txid: &str, ts: u64) -> TransactionLog {
    TransactionLog {
        sequence: 0,
        txid: txid.to_owned(),
        ts,
        kind: "enclave".to_owned(),
        request_type: "HTTP".to_owned(),
        request_method: Some("GET".to_owned()),
        uri: Some("/".to_owned()),
        remote_ip: None,
        user_agent: Some("x\r\n\u{1b}[31m".to_owned()),
        request_headers: std::collections::BTreeMap::new(),
        response_headers: std::collections::BTreeMap::new(),
        response_code: Some(200),
        status_group: Some("2XX".to_owned()),
        content_type: None,
        response_content_type: None,
        elapsed: 1.5,
        bytes_in: 1,
        bytes_out: 2,
        n_decrypted_fields: 0,
        resource_name: "r".to_owned(),
        resource_uuid: "u".to_owned(),
        app_uuid: "a".to_owned(),
        team_uuid: "t".to_owned(),
        api_key_id: None,
    }
}

fn txids(batch: &Batch) -> Vec<String> {
    let lines = batch.ndjson.split_inclusive(|byte| *byte == b'\n');
    lines
        .map(|line| serde_json::from_slice::<TransactionLog>(line).unwrap().txid)
        .collect()
}

#[test]
fn records_of_all_workers_are_numbered_in_the_order_of_their_start() {
    let (mut ring, sinks) = ring(1 << 20, 2);
    let (first, second) = (sinks.sink(), sinks.sink());
    first.record(&log("c", 3));
    first.record(&log("a", 1));
    second.record(&log("b", 2));
    ring.collect();
    let batch = ring.batch().unwrap();
    assert_eq!(txids(&batch), ["a", "b", "c"]);
    assert_eq!(batch.last_sequence, 3);
}

/// T-20: one record is one line, whatever a client put into it.
#[test]
fn control_characters_never_reach_a_line_unescaped() {
    let (mut ring, sinks) = ring(1 << 20, 1);
    sinks.sink().record(&log("a\nb", 1));
    ring.collect();
    let ndjson = ring.batch().unwrap().ndjson;
    let controls = ndjson.iter().filter(|byte| **byte < 0x20);
    assert_eq!(controls.copied().collect::<Vec<_>>(), b"\n");
}

#[test]
fn a_record_leaves_only_when_it_is_acknowledged() {
    let (mut ring, sinks) = ring(1 << 20, 1);
    let sink = sinks.sink();
    for ts in 1..=3 {
        sink.record(&log(&ts.to_string(), ts));
    }
    ring.collect();
    assert_eq!(ring.batch(), ring.batch());
    assert_eq!(ring.acknowledge(2), 2);
    assert_eq!(txids(&ring.batch().unwrap()), ["3"]);
    assert_eq!(ring.acknowledge(2), 0);
    assert_eq!(ring.acknowledge(3), 1);
    assert_eq!(ring.batch(), None);
    assert_eq!(sinks.stats().acked, 3);
    assert_eq!(sinks.stats().bytes, 0);
}

/// The host is away: memory stays bounded, the newest records stay, and every loss is counted.
#[test]
fn overflow_drops_the_oldest_and_counts_them() {
    let limit = 64 * 1024;
    let (mut ring, sinks) = ring(limit, 1);
    let sink = sinks.sink();
    for ts in 1..=1_000 {
        sink.record(&log(&format!("{ts}"), ts));
        if ts % 10 == 0 {
            ring.collect();
        }
    }
    let stats = sinks.stats();
    assert!(stats.bytes <= limit as u64, "{stats:?}");
    assert!(stats.dropped > 0 && stats.records > 10, "{stats:?}");
    assert_eq!(stats.records + stats.dropped, 1_000, "{stats:?}");
    let batch = ring.batch().unwrap();
    assert_eq!(batch.last_sequence, 1_000);
    assert_eq!(txids(&batch).last().unwrap(), "1000");
}

/// A collector that stands still must not let a worker grow without bound.
#[test]
fn a_sink_that_nobody_empties_is_bounded_too() {
    let (mut ring, sinks) = ring(256 * 1024, 2);
    let sink = sinks.sink();
    for ts in 1..=1_000 {
        sink.record(&log("x", ts));
    }
    let held = lock(&sink.own.queue).bytes;
    assert!(held <= 32 * 1024, "{held}");
    ring.collect();
    let stats = sinks.stats();
    assert_eq!(stats.records + stats.dropped, 1_000, "{stats:?}");
}

#[test]
fn a_batch_stays_under_its_size() {
    let (mut ring, sinks) = ring(64 << 20, 1);
    let sink = sinks.sink();
    for ts in 1..=20 {
        let mut record = log("x", ts);
        record.uri = Some("y".repeat(60_000));
        sink.record(&record);
    }
    ring.collect();
    let batch = ring.batch().unwrap();
    assert!(batch.ndjson.len() <= BATCH_BYTES);
    assert!(batch.last_sequence >= 7);
}

#[test]
fn the_sink_of_a_worker_that_ended_is_emptied_and_forgotten() {
    let (mut ring, sinks) = ring(1 << 20, 1);
    let sink = sinks.sink();
    sink.record(&log("last", 1));
    drop(sink);
    ring.collect();
    assert_eq!(txids(&ring.batch().unwrap()), ["last"]);
    assert!(lock(&sinks.shared.sinks).is_empty());
}
