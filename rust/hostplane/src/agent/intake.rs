//! What a batch of log records must look like before a byte of it is written.
//!
//! Each line is one JSON object with a sequence number; numbers rise within a batch. Everything else
//! in a record is kept as it came: it is the enclave's word, and whoever shows it escapes it.

use std::ops::Range;

use bytes::Bytes;
use cloister_wire::agent::{BATCH_SEQUENCE_HEADER, BOOT_HEADER};
use serde::Deserialize;
use thiserror::Error;

/// Longest record, in bytes: a head of 64 KiB, escaped, fits.
pub const MAX_LINE_BYTES: usize = 512 * 1024;
/// Length of [`BOOT_HEADER`]'s value.
pub const BOOT_DIGITS: usize = 32;

/// A batch that passed every check.
#[derive(Debug)]
pub struct Batch {
    /// Which start of the data plane it is of: 32 lower-case hexadecimal digits.
    pub boot: String,
    /// The records, in order; at least one.
    pub lines: Vec<Line>,
    body: Bytes,
}

/// One record of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its sequence number.
    pub sequence: u64,
    range: Range<usize>,
}

/// Why a batch was refused.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The boot is missing or malformed.
    #[error("`{BOOT_HEADER}` is not {BOOT_DIGITS} hexadecimal digits")]
    Boot,
    /// There is nothing in it.
    #[error("the body has no record")]
    Empty,
    /// A record is too long.
    #[error("line {line} is longer than {MAX_LINE_BYTES} bytes")]
    LongLine {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A line is something else than a record.
    #[error("line {line} is not a JSON object with a `sequence` of at least 1")]
    NotARecord {
        /// Number of the line, from 1.
        line: usize,
    },
    /// Two records in the wrong order, or with one number.
    #[error("line {line}: sequence numbers must rise")]
    NotRising {
        /// Number of the line, from 1.
        line: usize,
    },
    /// The announced number is missing, malformed, or another than the last record's.
    #[error("`{BATCH_SEQUENCE_HEADER}` is not the sequence number of the last record")]
    Sequence,
    /// The body was cut off.
    #[error("the last line does not end in a line feed")]
    Unfinished,
}

impl Batch {
    /// Checks a batch: `boot` and `announced` are the values of [`BOOT_HEADER`] and
    /// [`BATCH_SEQUENCE_HEADER`].
    ///
    /// # Errors
    ///
    /// In this order: [`BatchError::Boot`], [`BatchError::Sequence`] for a number that is none, the
    /// first line that is wrong, [`BatchError::Empty`], [`BatchError::Sequence`].
    pub fn check(
        boot: Option<&str>,
        announced: Option<&str>,
        body: Bytes,
    ) -> Result<Self, BatchError> {
        let boot = boot
            .filter(|boot| {
                boot.len() == BOOT_DIGITS && boot.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
            .ok_or(BatchError::Boot)?
            .to_ascii_lowercase();
        let announced: u64 = announced
            .and_then(|sequence| sequence.parse().ok())
            .ok_or(BatchError::Sequence)?;
        let lines = lines(&body)?;
        match lines.last() {
            None => Err(BatchError::Empty),
            Some(last) if last.sequence != announced => Err(BatchError::Sequence),
            Some(_) => Ok(Self { boot, lines, body }),
        }
    }

    /// The bytes of the records after `sequence`, and how many there are.
    pub fn after(&self, sequence: u64) -> (&[u8], u64) {
        let known = self.lines.partition_point(|line| line.sequence <= sequence);
        let new = self.lines.get(known..).unwrap_or_default();
        let bytes = match new.first() {
            Some(first) => self.body.get(first.range.start..).unwrap_or_default(),
            None => &[],
        };
        (bytes, u64::try_from(new.len()).unwrap_or(u64::MAX))
    }
}

/// Sequence number of one record, at least 1, or `None` when it is not one.
pub(super) fn sequence_of(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Record {
        sequence: u64,
    }
    // serde_json does not look inside the strings it skips.
    let text = std::str::from_utf8(line).ok()?;
    if !text.starts_with('{') {
        return None;
    }
    let record: Record = serde_json::from_str(text).ok()?;
    // Numbers begin at 1: 0 is what is known before the first.
    (record.sequence > 0).then_some(record.sequence)
}

fn lines(body: &[u8]) -> Result<Vec<Line>, BatchError> {
    let mut lines: Vec<Line> = Vec::new();
    let mut start = 0_usize;
    for (index, bytes) in body.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = index.saturating_add(1);
        if bytes.len() > MAX_LINE_BYTES {
            return Err(BatchError::LongLine { line });
        }
        let record = bytes.strip_suffix(b"\n").ok_or(BatchError::Unfinished)?;
        let sequence = sequence_of(record).ok_or(BatchError::NotARecord { line })?;
        if lines.last().is_some_and(|last| last.sequence >= sequence) {
            return Err(BatchError::NotRising { line });
        }
        let end = start.saturating_add(bytes.len());
        lines.push(Line {
            sequence,
            range: start..end,
        });
        start = end;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, sequence: &str) -> Result<Batch, BatchError> {
        let boot = "0123456789ABCDEF0123456789abcdef";
        let body = Bytes::copy_from_slice(body.as_bytes());
        Batch::check(Some(boot), Some(sequence), body)
    }

    const BODY: &str = "{\"sequence\":3,\"uri\":\"/a\"}\n{\"sequence\":4}\n{\"uri\":\"/\\u001b\",\"sequence\":9}\n";

    #[test]
    fn a_batch_is_cut_after_what_is_known_already() {
        let batch = check(BODY, "9").unwrap();
        assert_eq!(batch.boot, "0123456789abcdef0123456789abcdef");
        assert_eq!(batch.after(0), (BODY.as_bytes(), 3));
        assert_eq!(
            batch.after(3),
            (
                &b"{\"sequence\":4}\n{\"uri\":\"/\\u001b\",\"sequence\":9}\n"[..],
                2
            )
        );
        assert_eq!(batch.after(8).1, 1);
        assert_eq!(batch.after(9), (&b""[..], 0));
    }

    #[test]
    fn what_is_not_a_batch_is_refused_and_the_line_named() {
        for (body, sequence, error) in [
            ("", "1", BatchError::Empty),
            ("\n", "1", BatchError::NotARecord { line: 1 }),
            ("{}\n", "1", BatchError::NotARecord { line: 1 }),
            (
                "{\"sequence\":0}\n",
                "0",
                BatchError::NotARecord { line: 1 },
            ),
            ("[1]\n", "1", BatchError::NotARecord { line: 1 }),
            ("{\"sequence\":1}", "1", BatchError::Unfinished),
            (
                "{\"sequence\":-1}\n",
                "1",
                BatchError::NotARecord { line: 1 },
            ),
            (
                "{\"sequence\":\"1\"}\n",
                "1",
                BatchError::NotARecord { line: 1 },
            ),
            (
                "{\"sequence\":1} {}\n",
                "1",
                BatchError::NotARecord { line: 1 },
            ),
            (
                "{\"sequence\":1}\r\r{\n",
                "1",
                BatchError::NotARecord { line: 1 },
            ),
            (
                "{\"sequence\":1}\n{\"a\":\"\u{7}\",\"sequence\":2}\n",
                "2",
                BatchError::NotARecord { line: 2 },
            ),
            (
                "{\"sequence\":2}\n{\"sequence\":2}\n",
                "2",
                BatchError::NotRising { line: 2 },
            ),
            ("{\"sequence\":1}\n", "2", BatchError::Sequence),
            ("{\"sequence\":1}\n", "one", BatchError::Sequence),
        ] {
            assert_eq!(check(body, sequence).unwrap_err(), error, "{body:?}");
        }
        check("{\"sequence\":1}\n", "1").unwrap();
    }

    #[test]
    fn a_record_of_bytes_that_are_not_text_is_refused() {
        assert_eq!(sequence_of(b"{\"a\":\"\xff\",\"sequence\":1}"), None);
        assert_eq!(sequence_of(b"{\"a\":\"f\",\"sequence\":1}"), Some(1));
    }

    #[test]
    fn the_longest_record_is_bounded() {
        let pad = |length: usize| {
            let frame = "{\"sequence\":1,\"a\":\"\"}\n".len();
            format!(
                "{{\"sequence\":1,\"a\":\"{}\"}}\n",
                "x".repeat(length.saturating_sub(frame))
            )
        };
        check(&pad(MAX_LINE_BYTES), "1").unwrap();
        assert_eq!(
            check(&pad(MAX_LINE_BYTES.saturating_add(1)), "1").unwrap_err(),
            BatchError::LongLine { line: 1 }
        );
    }

    #[test]
    fn a_batch_without_its_boot_or_number_is_refused() {
        let body = || Bytes::from_static(b"{\"sequence\":1}\n");
        let boot = "f".repeat(BOOT_DIGITS);
        for wrong in [
            None,
            Some(""),
            Some("me"),
            Some("0123456789abcdef0123456789abcdeg"),
        ] {
            let error = Batch::check(wrong, Some("1"), body()).unwrap_err();
            assert_eq!(error, BatchError::Boot);
        }
        let error = Batch::check(Some(&boot), None, body()).unwrap_err();
        assert_eq!(error, BatchError::Sequence);
        Batch::check(Some(&boot), Some("1"), body()).unwrap();
    }

    proptest::proptest! {
        /// What is written after a restart is exactly what was not there before it.
        #[test]
        fn a_batch_splits_at_any_number_without_loss(
            steps in proptest::collection::vec(1_u64..5, 1..40),
            cut in 0_u64..200,
        ) {
            let mut sequence = 0_u64;
            let mut sequences = Vec::new();
            for step in steps {
                sequence = sequence.saturating_add(step);
                sequences.push(sequence);
            }
            let line = |sequence: &u64| format!("{{\"sequence\":{sequence}}}\n");
            let body: String = sequences.iter().map(line).collect();
            let batch = check(&body, &sequence.to_string()).unwrap();
            let rest: String = sequences.iter().filter(|it| **it > cut).map(line).collect();
            let (bytes, count) = batch.after(cut);
            proptest::prop_assert_eq!(bytes, rest.as_bytes());
            proptest::prop_assert_eq!(count, u64::try_from(rest.lines().count()).unwrap());
        }

        /// Bytes of a stranger end in a batch or an error, and a batch keeps them as they came.
        #[test]
        fn any_bytes_are_judged_without_a_panic(
            bytes in proptest::collection::vec(proptest::sample::select(&b"{}\"sequence:12,\n\\\xff"[..]), 0..200),
        ) {
            if let Ok(lines) = lines(&bytes) {
                let whole: usize = lines.iter().map(|line| line.range.len()).sum();
                proptest::prop_assert_eq!(whole, bytes.len());
            }
        }
    }
}
