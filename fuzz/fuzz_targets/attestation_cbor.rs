//! Any bytes as CBOR: what is read can be written again, and where nothing is indefinite the bytes are
//! the same: one spelling for one value.

#![no_main]

use cloister_attestation::cbor::{CborError, Reader, Remaining, Writer};
use libfuzzer_sys::fuzz_target;

const DEPTH: usize = 6;

/// Copies one item; true when all of it is definite.
fn copy(reader: &mut Reader<'_>, out: &mut Writer, depth: usize) -> Result<bool, CborError> {
    let depth = depth
        .checked_sub(1)
        .ok_or(CborError("is nested too deeply"))?;
    let mut attempt = reader.clone();
    if let Ok(value) = attempt.unsigned() {
        *reader = attempt;
        out.unsigned(value);
        return Ok(true);
    }
    if let Ok(value) = attempt.integer() {
        *reader = attempt;
        out.integer(value);
        return Ok(true);
    }
    if let Ok(value) = attempt.boolean() {
        *reader = attempt;
        out.boolean(value);
        return Ok(true);
    }
    if reader.is_text() {
        out.text(reader.text(usize::MAX)?);
        return Ok(true);
    }
    if let Ok(value) = attempt.bytes_or_null(usize::MAX) {
        *reader = attempt;
        out.bytes_or_null(value);
        return Ok(true);
    }
    if let Ok(Some(tag)) = attempt.tag() {
        *reader = attempt;
        out.tag(tag);
        return copy(reader, out, depth);
    }
    let (mut remaining, items) = match attempt.array(usize::MAX) {
        Ok(remaining) => (remaining, 1),
        Err(_) => (attempt.map(usize::MAX)?, 2),
    };
    *reader = attempt;
    let mut is_definite = true;
    match (&remaining, items) {
        (Remaining::Definite(count), 1) => drop(out.array(*count as u64)),
        (Remaining::Definite(count), _) => drop(out.map(*count as u64)),
        (Remaining::Indefinite(_), _) => is_definite = false,
    }
    while reader.has_next(&mut remaining)? {
        for _ in 0..items {
            is_definite &= copy(reader, out, depth)?;
        }
    }
    Ok(is_definite)
}

fuzz_target!(|data: &[u8]| {
    let mut reader = Reader::new(data);
    let mut out = Writer::new();
    let copied = copy(&mut reader, &mut out, DEPTH).and_then(|definite| {
        reader.finish()?;
        Ok(definite)
    });
    let mut skipping = Reader::new(data);
    let skipped = skipping.skip(DEPTH).and_then(|()| skipping.finish());
    if let Ok(definite) = copied {
        // What can be read can be passed over.
        assert_eq!(skipped, Ok(()));
        if definite {
            assert_eq!(out.into_bytes(), data);
        }
    }
});
