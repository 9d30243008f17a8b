//! Log segments: the files an enclave's records are appended to before they are acknowledged.
//!
//! A segment is NDJSON. Its first line says which enclave and which boot it is of and after which
//! sequence number it goes on; the records follow as they came. A segment holds records of one boot.
//! Names are numbers that rise, so that a reader needs no index. One thread writes: every batch that
//! waits is written, one `fdatasync` follows, then all of them are acknowledged.
//!
//! A process that dies between two batches leaves whole lines or a torn last one; the torn one is
//! cut off at the next start, and its sender, which saw no acknowledgement, sends it again.

use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use fs_err::os::unix::fs::OpenOptionsExt;
use fs_err::{File, OpenOptions};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::Counters;
use super::intake::{Batch, MAX_LINE_BYTES, sequence_of};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct SegmentLimits {
    /// A segment that would grow over this is followed by a next one.
    pub max_bytes: u64,
    /// Beyond this many the oldest is removed.
    pub max_segments: usize,
}

impl Default for SegmentLimits {
    /// 32 segments of 32 MiB: 1 GiB of one enclave's logs.
    fn default() -> Self {
        Self {
            max_bytes: 32 << 20,
            max_segments: 32,
        }
    }
}

/// Why a batch was not written.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum SegmentError {
    /// More batches wait than one enclave should send.
    #[error("too many batches wait to be written")]
    Busy,
    /// The disk refused.
    #[error("a segment cannot be written")]
    Disk(#[source] io::Error),
    /// The server is stopping.
    #[error("the log writer has ended")]
    Ended,
}

/// The way to the writer's thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct LogWriter {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    batch: Batch,
    answer: oneshot::Sender<Result<u64, SegmentError>>,
}

impl LogWriter {
    /// Opens `dir` for one writer and starts its thread.
    pub(super) fn start(
        dir: &Path,
        enclave: &str,
        limits: SegmentLimits,
        counters: Arc<Counters>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let mut log = SegmentedLog::open(dir, enclave, limits)?;
        counters.acked.store(log.last_sequence(), Ordering::Relaxed);
        let (queue, jobs) = mpsc::channel(MAX_WAITING);
        let thread = std::thread::Builder::new()
            .name("agent-logs".to_owned())
            .spawn(move || write_all(&mut log, jobs, &counters))?;
        Ok((Self { queue }, thread))
    }

    /// Writes what is new in `batch` and returns the last sequence number on disk, after it is there.
    pub(super) async fn append(&self, batch: Batch) -> Result<u64, SegmentError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.queue.try_send(Job { batch, answer });
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SegmentError::Busy,
            mpsc::error::TrySendError::Closed(_) => SegmentError::Ended,
        })?;
        answered.await.unwrap_or(Err(SegmentError::Ended))
    }
}

fn write_all(log: &mut SegmentedLog, mut jobs: mpsc::Receiver<Job>, counters: &Counters) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        while group.len() < MAX_WAITING
            && let Ok(next) = jobs.try_recv()
        {
            group.push(next);
        }
        let mut written = Vec::with_capacity(group.len());
        for Job { batch, answer } in group {
            let result = log.append(&batch);
            if let Ok(appended) = &result {
                let all = u64::try_from(batch.lines.len()).unwrap_or(u64::MAX);
                counters.records.fetch_add(appended.new, Ordering::Relaxed);
                counters
                    .duplicates
                    .fetch_add(all.saturating_sub(appended.new), Ordering::Relaxed);
            }
            written.push((answer, result));
        }
        let synced = log.sync().map_err(|error| error.kind());
        for (answer, result) in written {
            let result = result
                .and_then(|appended| synced.map(|()| appended.acked).map_err(io::Error::from))
                .map_err(SegmentError::Disk);
            // The connection that asked may be gone; the records are on disk all the same.
            drop(answer.send(result));
        }
    }
}

/// First line of a segment.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    segment: u64,
    enclave: String,
    boot: String,
    /// Last sequence number of this boot before this segment.
    after: u64,
    /// Milliseconds since the Unix epoch.
    created_ms: u64,
}

/// What [`SegmentedLog::append`] did.
#[derive(Debug)]
struct Appended {
    new: u64,
    acked: u64,
}

#[derive(Debug)]
struct SegmentedLog {
    dir: PathBuf,
    enclave: String,
    limits: SegmentLimits,
    current: Option<Segment>,
    next_number: u64,
    /// Held while this is open: one writer.
    _lock: std::fs::File,
}

#[derive(Debug)]
struct Segment {
    file: File,
    boot: String,
    last_sequence: u64,
    /// Bytes of whole lines.
    size: u64,
}

impl SegmentedLog {
    fn open(dir: &Path, enclave: &str, limits: SegmentLimits) -> io::Result<Self> {
        make_private(dir)?;
        let lock = private()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(LOCK))?;
        let lock = lock.into_parts().0;
        lock.try_lock().map_err(|_| {
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("another process writes the logs in {}", dir.display()),
            )
        })?;
        let last = numbers(dir)?.last().copied();
        let current = match last {
            Some(number) => recover(&path_of(dir, number))?,
            None => None,
        };
        Ok(Self {
            dir: dir.to_owned(),
            enclave: enclave.to_owned(),
            limits,
            current,
            next_number: last.unwrap_or(0).saturating_add(1),
            _lock: lock,
        })
    }

    fn last_sequence(&self) -> u64 {
        self.current.as_ref().map_or(0, |it| it.last_sequence)
    }

    /// Appends the records of `batch` that are not there yet. Nothing is promised before
    /// [`Self::sync`].
    fn append(&mut self, batch: &Batch) -> io::Result<Appended> {
        let known = match &self.current {
            Some(segment) if segment.boot == batch.boot => segment.last_sequence,
            _ => 0,
        };
        let (bytes, new) = batch.after(known);
        if new == 0 {
            return Ok(Appended { new, acked: known });
        }
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let max_bytes = self.limits.max_bytes;
        let goes_on = |segment: &Segment| {
            segment.boot == batch.boot && segment.size.saturating_add(size) <= max_bytes
        };
        let segment = match self.current.take().filter(goes_on) {
            Some(segment) => segment,
            None => self.next_segment(&batch.boot, known)?,
        };
        let segment = self.current.insert(segment);
        segment.write(bytes)?;
        segment.last_sequence = batch.lines.last().map_or(known, |line| line.sequence);
        Ok(Appended {
            new,
            acked: segment.last_sequence,
        })
    }

    fn sync(&self) -> io::Result<()> {
        match &self.current {
            Some(segment) => segment.file.sync_data(),
            None => Ok(()),
        }
    }

    /// Makes the next segment. The one before it is closed by now, so it is synced through its name.
    fn next_segment(&mut self, boot: &str, after: u64) -> io::Result<Segment> {
        let number = self.next_number;
        if let Some(before) = number.checked_sub(1)
            && let Ok(file) = File::open(path_of(&self.dir, before))
        {
            file.sync_data()?;
        }
        let header = Header {
            segment: number,
            enclave: self.enclave.clone(),
            boot: boot.to_owned(),
            after,
            created_ms: now_ms(),
        };
        let mut line = serde_json::to_vec(&header)?;
        line.push(b'\n');
        let file = private()
            .append(true)
            .create_new(true)
            .open(path_of(&self.dir, number))?;
        self.next_number = number.saturating_add(1);
        let mut segment = Segment {
            file,
            boot: boot.to_owned(),
            last_sequence: after,
            size: 0,
        };
        segment.write(&line)?;
        segment.file.sync_data()?;
        File::open(&self.dir)?.sync_all()?;
        self.remove_oldest()?;
        Ok(segment)
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let numbers = numbers(&self.dir)?;
        let extra = numbers
            .len()
            .saturating_sub(self.limits.max_segments.max(1));
        for number in numbers.into_iter().take(extra) {
            fs_err::remove_file(path_of(&self.dir, number))?;
        }
        Ok(())
    }
}

impl Segment {
    /// Writes whole lines, or, when the disk refuses, none of them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            self.file.set_len(self.size)?;
            return Err(error);
        }
        let written = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.size = self.size.saturating_add(written);
        Ok(())
    }
}

/// Reads a segment that a process before this one wrote, and cuts off a torn last line. `None` when
/// not even its first line is whole: it is left as it is and followed by the next.
fn recover(path: &Path) -> io::Result<Option<Segment>> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(&mut file);
    let mut line = Vec::new();
    let mut size = read_line(&mut reader, &mut line)?;
    let header: Header = match serde_json::from_slice(&line) {
        Ok(header) if size > 0 => header,
        _ => return Ok(None),
    };
    let mut last_sequence = header.after;
    loop {
        let length = read_line(&mut reader, &mut line)?;
        let record = line.strip_suffix(b"\n").and_then(sequence_of);
        let (Some(sequence), true) = (record, length > 0) else {
            break;
        };
        last_sequence = sequence;
        size = size.saturating_add(length);
    }
    drop(reader);
    file.set_len(size)?;
    file.sync_data()?;
    Ok(Some(Segment {
        file,
        boot: header.boot,
        last_sequence,
        size,
    }))
}

/// Reads one line with its line feed; 0 at the end, also when the last line has none.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
    io::Read::take(reader, limit).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        Ok(u64::try_from(line.len()).unwrap_or(u64::MAX))
    } else {
        Ok(0)
    }
}

/// Numbers of the segments in `dir`, rising.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs_err::read_dir(dir)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(EXTENSION));
        if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}{EXTENSION}"))
}

fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Batches that may wait for the disk.
const MAX_WAITING: usize = 16;
const EXTENSION: &str = ".ndjson";
const LOCK: &str = "lock";

#[cfg(test)]
mod tests;
