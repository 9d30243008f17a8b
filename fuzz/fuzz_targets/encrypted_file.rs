//! Any bytes as an encrypted file: nothing is given that was not sealed. The first byte says what is
//! done to a file that opens: bytes are changed, with and without a checksum that is right again.

#![no_main]

use std::sync::LazyLock;

use cloister_ciphertext::{
    AppPrivateKey, FILE_OVERHEAD_BYTES, FileSealer, Keyring, OpenError, OpenPolicy, OpenSession, Random,
    RandomError, Secp256k1PrivateKey, open_file, seal_file,
};
use libfuzzer_sys::fuzz_target;

struct Fixture {
    keyring: Keyring,
    app: AppPrivateKey,
    file: Vec<u8>,
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

const CLEAR: &[u8] = b"clear text of a file";

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let key = || AppPrivateKey::from_bytes(&[0x11; 32]).expect("a scalar of the curve");
    let other = Secp256k1PrivateKey::from_bytes(&[0x33; 32]).expect("a scalar of the curve");
    Fixture {
        keyring: Keyring::with_secp256k1(vec![key()], vec![other]).expect("two keys"),
        file: seal_file(CLEAR, key().public(), &mut Counting(7)).expect("it seals"),
        app: key(),
    }
});

fn open(file: &[u8]) -> Result<Vec<u8>, OpenError> {
    let policy = OpenPolicy { dangerous_accept_debug: false, distinct_keys: 1 };
    let mut session = OpenSession::new(&FIXTURE.keyring, policy);
    open_file(file, &mut session).map(|clear| clear.to_vec())
}

/// With a checksum that is right.
fn with_checksum(covered: &[u8]) -> Vec<u8> {
    [covered, &crc32fast::hash(covered).to_le_bytes()].concat()
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 3 {
        // As they are, and behind the start of a file.
        0 => {
            let opened = open(rest);
            assert!(opened.is_err() || opened.as_deref() == Ok(CLEAR));
            let head = &FIXTURE.file[..usize::from(choice / 3).min(FIXTURE.file.len())];
            // A tag cannot be guessed; the file itself can be written out.
            let opened = open(&with_checksum(&[head, rest].concat()));
            assert!(opened.is_err() || opened.as_deref() == Ok(CLEAR));
        }
        // Changed where pairs of bytes say.
        1 => {
            let mut covered = FIXTURE.file[..FIXTURE.file.len() - 4].to_vec();
            for pair in rest.chunks_exact(2) {
                let at = usize::from(pair[0]) % covered.len();
                covered[at] ^= pair[1];
            }
            let is_same = covered == FIXTURE.file[..covered.len()];
            let opened = open(&with_checksum(&covered));
            assert_eq!(opened.is_ok(), is_same, "{opened:?}");
        }
        // Sealed in pieces of any length, it comes back.
        _ => {
            let mut file = Vec::new();
            let mut random = Counting(*choice);
            let mut sealer =
                FileSealer::begin(FIXTURE.app.public(), &mut random, &mut file).expect("it seals");
            for piece in rest.chunks(usize::from(choice / 3) + 1) {
                sealer.push(piece, &mut file).expect("it seals");
            }
            sealer.finish(&mut file).expect("it seals");
            assert_eq!(file.len(), rest.len() + FILE_OVERHEAD_BYTES);
            assert_eq!(open(&file).as_deref(), Ok(rest));
            let cut = if rest.is_empty() { OpenError::NotAFile } else { OpenError::Damaged };
            assert_eq!(open(&file[..file.len() - 1]), Err(cut));
        }
    }
});
