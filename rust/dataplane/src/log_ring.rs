//! Transaction logs inside the enclave, until the host has them on its disk.
//!
//! Each worker has a [`LogSink`] of its own, whose lock it shares with the collector alone, which
//! takes it about once a second. A record arrives as the text of a JSON object; the [`LogRing`] numbers
//! records and keeps them until they are acknowledged. Both are bounded in bytes: what does not fit pushes the
//! oldest out, and that is counted. Sending is [`crate::log_shipper`]'s.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_wire::logs::TransactionLog;
use tokio::sync::Notify;

/// Where one worker puts its records. Never blocks for longer than the collector takes a list over.
pub struct LogSink {
    own: Arc<Own>,
    shared: Arc<Shared>,
}

/// The collector's end: the list of all sinks, and what was taken from them.
pub struct LogRing {
    shared: Arc<Shared>,
    lines: VecDeque<Line>,
    bytes: usize,
    limit: usize,
    next_sequence: u64,
}

/// Makes sinks.
#[derive(Clone)]
pub struct LogSinks {
    shared: Arc<Shared>,
}

/// Counters, readable from anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records in the ring that are not acknowledged.
    pub records: u64,
    /// Their size, bytes.
    pub bytes: u64,
    /// Records dropped because there was no room.
    pub dropped: u64,
    /// Records that the host has.
    pub acked: u64,
    /// Size over which the oldest are dropped, bytes.
    pub limit: u64,
}

/// One record: the members of a JSON object without `sequence` and without braces.
struct Record {
    /// Start, milliseconds since the Unix epoch.
    ts: u64,
    members: Vec<u8>,
}

/// One record with its number.
struct Line {
    sequence: u64,
    members: Vec<u8>,
}

/// What a batch holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Sequence number of the last record in it.
    pub last_sequence: u64,
    /// NDJSON: every line ends in a line feed.
    pub ndjson: Vec<u8>,
}

struct Shared {
    sinks: Mutex<Vec<Arc<Own>>>,
    sink_limit: usize,
    /// Of the ring and of all sinks together.
    limit: usize,
    wake: Notify,
    records: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    acked: AtomicU64,
}

#[derive(Default)]
struct Own {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Record>,
    bytes: usize,
}

/// A ring of `limit` bytes altogether, for `workers` sinks, and what makes those.
///
/// A quarter of the bytes is for what the workers hold before it is collected.
pub fn ring(limit: usize, workers: usize) -> (LogRing, LogSinks) {
    let for_sinks = limit.checked_div(4).unwrap_or(limit);
    let shared = Arc::new(Shared {
        sinks: Mutex::default(),
        limit,
        sink_limit: for_sinks.checked_div(workers).unwrap_or(for_sinks),
        wake: Notify::new(),
        records: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        acked: AtomicU64::new(0),
    });
    let ring = LogRing {
        shared: Arc::clone(&shared),
        lines: VecDeque::new(),
        bytes: 0,
        limit: limit.saturating_sub(for_sinks),
        next_sequence: 1,
    };
    (ring, LogSinks { shared })
}

impl LogSinks {
    /// A sink for one more worker.
    pub fn sink(&self) -> LogSink {
        let own = Arc::new(Own::default());
        lock(&self.shared.sinks).push(Arc::clone(&own));
        LogSink {
            own,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Counters of the ring.
    pub fn stats(&self) -> LogStats {
        self.shared.stats()
    }
}

impl LogSink {
    /// Takes a record; its `sequence` is given later. When there is no room the oldest of this
    /// worker goes.
    pub fn record(&self, log: &TransactionLog) {
        let mut members = Vec::new();
        // A map of strings always has a JSON form.
        if serde_json::to_writer(&mut members, log).is_ok() {
            // `sequence` comes first and is 0, the last byte is the closing brace.
            let inside = members.strip_prefix(b"{\"sequence\":0,".as_slice());
            let inside = inside.and_then(|inside| inside.strip_suffix(b"}"));
            self.record_members(log.ts, inside.unwrap_or_default().to_vec());
        }
    }

    /// As [`Self::record`], for a record that is text already: `members` are those of its JSON
    /// object but for `sequence`, without braces and without control characters; `ts` is its start,
    /// milliseconds since the Unix epoch.
    pub fn record_members(&self, ts: u64, members: Vec<u8>) {
        let record = Record { ts, members };
        let mut queue = lock(&self.own.queue);
        let before = queue.bytes;
        queue.bytes = queue.bytes.saturating_add(weight(&record.members));
        queue.records.push_back(record);
        let mut dropped = 0_u64;
        while queue.bytes > self.shared.sink_limit {
            let Some(record) = queue.records.pop_front() else {
                break;
            };
            queue.bytes = queue.bytes.saturating_sub(weight(&record.members));
            dropped = dropped.saturating_add(1);
        }
        let after = queue.bytes;
        drop(queue);
        if dropped > 0 {
            self.shared.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        if before < WAKE_BYTES && after >= WAKE_BYTES {
            self.shared.wake.notify_one();
        }
    }
}

impl LogRing {
    /// Waits until a sink holds a good part of a batch.
    pub(crate) async fn woken(&self) {
        self.shared.wake.notified().await;
    }

    /// Takes over what the sinks hold, in the order of their records' start.
    pub(crate) fn collect(&mut self) {
        let sinks = lock(&self.shared.sinks).clone();
        let mut taken: Vec<Record> = Vec::new();
        for own in &sinks {
            let mut queue = lock(&own.queue);
            let records = std::mem::take(&mut queue.records);
            queue.bytes = 0;
            drop(queue);
            taken.extend(records);
        }
        drop(sinks);
        // A sink whose worker has ended is held by this list alone.
        lock(&self.shared.sinks)
            .retain(|own| Arc::strong_count(own) > 1 || !lock(&own.queue).records.is_empty());
        taken.sort_by_key(|record| record.ts);
        for record in taken {
            self.push(record.members);
        }
        self.publish();
    }

    /// The oldest records that make a batch of at most [`BATCH_BYTES`], or one record alone.
    pub(crate) fn batch(&self) -> Option<Batch> {
        let mut ndjson = Vec::new();
        let mut last_sequence = self.lines.front()?.sequence;
        for line in &self.lines {
            let size = ndjson.len().saturating_add(length(&line.members));
            if !ndjson.is_empty() && size > BATCH_BYTES {
                break;
            }
            ndjson.extend_from_slice(b"{\"sequence\":");
            ndjson.extend_from_slice(itoa::Buffer::new().format(line.sequence).as_bytes());
            ndjson.push(b',');
            ndjson.extend_from_slice(&line.members);
            ndjson.extend_from_slice(b"}\n");
            last_sequence = line.sequence;
        }
        Some(Batch {
            last_sequence,
            ndjson,
        })
    }

    /// Forgets every record up to `sequence`, which the host has, and says how many those were.
    pub(crate) fn acknowledge(&mut self, sequence: u64) -> u64 {
        let mut acked = 0_u64;
        while self
            .lines
            .front()
            .is_some_and(|line| line.sequence <= sequence)
        {
            let Some(line) = self.lines.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(weight(&line.members));
            acked = acked.saturating_add(1);
        }
        self.shared.acked.fetch_add(acked, Ordering::Relaxed);
        self.publish();
        acked
    }

    fn push(&mut self, members: Vec<u8>) {
        let sequence = self.next_sequence;
        self.next_sequence = self.next_sequence.saturating_add(1);
        if length(&members) > MAX_LINE_BYTES {
            self.drop_one();
            return;
        }
        let line = Line { sequence, members };
        self.bytes = self.bytes.saturating_add(weight(&line.members));
        self.lines.push_back(line);
        while self.bytes > self.limit {
            let Some(line) = self.lines.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(weight(&line.members));
            self.drop_one();
        }
    }

    fn drop_one(&self) {
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn publish(&self) {
        let records = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        let bytes = u64::try_from(self.bytes).unwrap_or(u64::MAX);
        self.shared.records.store(records, Ordering::Relaxed);
        self.shared.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    fn stats(&self) -> LogStats {
        LogStats {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            acked: self.acked.load(Ordering::Relaxed),
            limit: u64::try_from(self.limit).unwrap_or(u64::MAX),
        }
    }
}

/// What a record costs in memory, bytes.
fn weight(members: &Vec<u8>) -> usize {
    members.capacity().saturating_add(size_of::<Line>())
}

/// Longest a record can be as a line, bytes.
fn length(members: &[u8]) -> usize {
    members.len().saturating_add(LINE_BYTES)
}

/// The lists are whole after every statement, so a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for LogSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LogSink").finish_non_exhaustive()
    }
}

impl fmt::Debug for LogSinks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(formatter)
    }
}

impl fmt::Debug for LogRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.stats().fmt(formatter)
    }
}

/// Size of a batch (data-plane.md §4), bytes.
pub const BATCH_BYTES: usize = 512 * 1024;
/// Longest record sent; the host takes none longer than 512 KiB. A longer one is dropped.
pub const MAX_LINE_BYTES: usize = 512 * 1024;
/// Bytes in one sink at which the collector is woken before its second is over.
const WAKE_BYTES: usize = BATCH_BYTES / 2;
/// What a line has around the members of its record: braces, the number and its name.
const LINE_BYTES: usize = 36;

#[cfg(test)]
pub(crate) mod tests;
