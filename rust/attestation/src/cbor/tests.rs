//! Tests of the CBOR reader and writer.

use proptest::prelude::*;

use super::*;

/// One number at each end of each width: the shortest form is read, a longer one is not.
#[test]
fn a_number_has_one_spelling() {
    for value in [
        0,
        23,
        24,
        255,
        256,
        65_535,
        65_536,
        u64::from(u32::MAX),
        1 << 32,
        u64::MAX,
    ] {
        let mut writer = Writer::new();
        writer.unsigned(value);
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.unsigned(), Ok(value));
        assert_eq!(reader.finish(), Ok(()));
    }
    for long in [
        &[0x18, 0x17][..],
        &[0x19, 0, 0xff],
        &[0x1a, 0, 0, 0xff, 0xff],
        &[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert_eq!(
            Reader::new(long).unsigned(),
            Err(CborError(
                "has a length or number that is not in its shortest form"
            ))
        );
    }
}

#[test]
fn integers_have_both_signs() {
    for value in [0, -1, -35, 24, -256, i64::MAX, i64::MIN] {
        let mut writer = Writer::new();
        writer.integer(value);
        let bytes = writer.into_bytes();
        assert_eq!(Reader::new(&bytes).integer(), Ok(value));
    }
    Reader::new(&[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
        .integer()
        .unwrap_err();
    assert_eq!(Reader::new(&[0x38, 0x22]).integer(), Ok(-35));
}

/// The declared length is compared with the limit before anything is taken.
#[test]
fn a_string_is_bounded_before_it_is_read() {
    let huge = [0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(Reader::new(&huge).bytes(16), Err(TOO_LONG));
    assert_eq!(Reader::new(&huge).skip(4), Err(CUT_SHORT));
    assert_eq!(Reader::new(&[0x42, 1, 2]).bytes(2), Ok(&[1, 2][..]));
    assert_eq!(Reader::new(&[0x42, 1, 2]).bytes(1), Err(TOO_LONG));
    assert_eq!(Reader::new(&[0x42, 1]).bytes(2), Err(CUT_SHORT));
}

/// The head of a string that is cut short, of too many items, of a number out of range.
#[test]
fn a_refused_question_moves_nothing() {
    for (bytes, limit) in [
        (&[0x56, 1, 2][..], 64),
        (&[0x43, 1, 2, 3], 2),
        (&[0x62, 0xc3, 0x28], 64),
        (&[0x83, 1, 2, 3], 2),
        (&[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 64),
    ] {
        let mut reader = Reader::new(bytes);
        reader.unsigned().unwrap_err();
        reader.integer().unwrap_err();
        reader.bytes(limit).unwrap_err();
        reader.bytes_or_null(limit).unwrap_err();
        reader.text(limit).unwrap_err();
        reader.boolean().unwrap_err();
        reader.array(limit).unwrap_err();
        reader.map(limit).unwrap_err();
        assert_eq!(reader.tag(), Ok(None));
        assert_eq!(reader.rest, bytes);
    }
    let mut reader = Reader::new(&[0x43, 1, 2, 3]);
    reader.text(3).unwrap_err();
    assert_eq!(reader.bytes(3), Ok(&[1, 2, 3][..]));
}

/// An indefinite string could spell one value in many ways.
#[test]
fn indefinite_strings_are_refused_and_definite_ones_are_read() {
    Reader::new(&[0x5f, 0x41, 1, 0xff]).bytes(8).unwrap_err();
    Reader::new(&[0x7f, 0x61, b'a', 0xff]).text(8).unwrap_err();
    Reader::new(&[0x5f, 0x41, 1, 0xff]).skip(8).unwrap_err();
    assert_eq!(Reader::new(&[0x41, 1]).bytes(8), Ok(&[1][..]));
    assert_eq!(Reader::new(&[0x61, b'a']).text(8), Ok("a"));
}

#[test]
fn definite_and_indefinite_maps_have_the_same_limit() {
    let count = |bytes: &[u8], limit| -> Result<usize, CborError> {
        let mut reader = Reader::new(bytes);
        let mut remaining = reader.map(limit)?;
        let mut seen = 0_usize;
        while reader.has_next(&mut remaining)? {
            reader.unsigned()?;
            reader.unsigned()?;
            seen = seen.saturating_add(1);
        }
        reader.finish()?;
        Ok(seen)
    };
    assert_eq!(count(&[0xa2, 1, 1, 2, 2], 2), Ok(2));
    assert_eq!(count(&[0xbf, 1, 1, 2, 2, 0xff], 2), Ok(2));
    assert_eq!(count(&[0xa2, 1, 1, 2, 2], 1), Err(TOO_MANY));
    assert_eq!(count(&[0xbf, 1, 1, 2, 2, 0xff], 1), Err(TOO_MANY));
    assert_eq!(count(&[0xbf, 1, 1, 2, 2], 2), Err(CUT_SHORT));
    count(&[0xa2, 1, 1, 2, 2, 0], 2).unwrap_err();
}

#[test]
fn depth_is_bounded() {
    let mut nested = vec![0x81; 5];
    nested.push(0);
    assert_eq!(Reader::new(&nested).skip(5), Ok(()));
    assert_eq!(
        Reader::new(&nested).skip(4),
        Err(CborError("is nested too deeply"))
    );
    let endless = vec![0xc1; 10_000];
    assert_eq!(
        Reader::new(&endless).skip(16),
        Err(CborError("is nested too deeply"))
    );
}

proptest! {
    /// No input makes the reader panic or read past its end.
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let mut reader = Reader::new(&bytes);
        if reader.skip(8).is_ok() {
            prop_assert!(reader.rest.len() < bytes.len());
        }
    }
}
