//! Any bytes as a body with tokens: the result does not depend on where it is cut, nor on whether it
//! lies in memory whole, and without a token nothing changes. `@` in the input stands for a token that opens, `#` for an encrypted file,
//! `|` for the delimiter of a multipart body.

#![no_main]

use std::sync::LazyLock;

use cloister_ciphertext::{
    AppPrivateKey, Boundary, Keyring, OpenPolicy, OpenSession, Place, Random, RandomError, ScanError,
    ScanLimits, Scanner, SealOptions, ValueType, may_need_scan, open_json,
    seal, seal_file,
};
use libfuzzer_sys::fuzz_target;

struct Fixture {
    keyring: Keyring,
    token: String,
    file: Vec<u8>,
    places: [Place; 5],
}

/// Not random: a finding must be found again.
struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let key = AppPrivateKey::from_bytes(&[0x11; 32]).expect("a scalar of the curve");
    let options = SealOptions::enclave(1_700_000_000);
    let token = seal(b"a \"b\" \\\n", ValueType::String, key.public(), &options, &mut Counting(5));
    let file = seal_file(b"\r\n--", key.public(), &mut Counting(7));
    let boundary = Boundary::of(b"multipart/form-data; boundary=b").expect("a boundary");
    Fixture {
        keyring: Keyring::new(vec![key]).expect("one key"),
        token: token.expect("it seals"),
        file: file.expect("it seals"),
        places: [Place::Json, Place::Text, Place::Detect, Place::Form, Place::Multipart(boundary)],
    }
});

fn scan<'b>(
    place: Place,
    pieces: impl Iterator<Item = &'b [u8]>,
) -> Result<(Vec<u8>, u64), ScanError> {
    let mut session = OpenSession::new(&FIXTURE.keyring, POLICY);
    let mut scanner = Scanner::new(place, LIMITS);
    let mut out = Vec::new();
    for piece in pieces {
        scanner.push(piece, &mut out, &mut session)?;
    }
    let summary = scanner.finish(&mut out, &mut session)?;
    Ok((out, summary.fields_opened))
}

fn splice(document: &[u8]) -> Result<(Vec<u8>, u64), ScanError> {
    let mut session = OpenSession::new(&FIXTURE.keyring, POLICY);
    let spliced = open_json(document, LIMITS, &mut session)?;
    let mut out = vec![0; spliced.len()];
    spliced.write(&mut out);
    Ok((out, session.opened()))
}

const POLICY: OpenPolicy = OpenPolicy { dangerous_accept_debug: false, distinct_keys: 4 };
const LIMITS: ScanLimits = ScanLimits { max_token: 512, max_file: 512 };

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = data.split_first() else { return };
    let place = FIXTURE.places[usize::from(choice % 5)];
    let step = usize::from(choice / 5).max(1);
    let mut body = Vec::new();
    for byte in text {
        match byte {
            b'@' => body.extend_from_slice(FIXTURE.token.as_bytes()),
            b'#' => body.extend_from_slice(&FIXTURE.file),
            b'|' => body.extend_from_slice(b"\r\n--b"),
            other => body.push(*other),
        }
    }
    let whole = scan(place, [body.as_slice()].into_iter());
    assert_eq!(whole, scan(place, body.chunks(step)));
    if place == Place::Json {
        assert_eq!(whole, splice(&body));
    }
    if let Ok((out, opened)) = whole {
        assert!(opened > 0 || out == body, "nothing was opened and something changed");
        assert!(opened == 0 || may_need_scan(place, &body));
    }
});
