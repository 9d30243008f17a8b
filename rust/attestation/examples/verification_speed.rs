//! How long one verification takes, beside the P-384 verifications that are in it.
//!
//! `verification_speed ROUNDS DOCUMENT…` prints one line of JSON for each document (a file that verifies
//! at its own time): nanoseconds of wall time, the least of all rounds, since everything else on a machine
//! only adds. What is compared takes turns within a round. `bench/python/attestation_speed.py` runs it.

use std::env;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::time::Instant;

use cloister_attestation::{
    AwsLc, P384PublicKey, Policy, Remembering, SignatureForm, SignatureRefused, SignatureVerifier,
    decode_unverified, verify, verify_with,
};

/// One question to the verifier of signatures.
struct Asked {
    key: P384PublicKey,
    form: SignatureForm,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Asked {
    fn answer(&self) -> Result<(), SignatureRefused> {
        AwsLc.verify_es384(&self.key, self.form, &self.message, &self.signature)
    }
}

/// Writes down what is asked.
#[derive(Default)]
struct Recording(Mutex<Vec<Asked>>);

impl SignatureVerifier for Recording {
    fn verify_es384(
        &self,
        key: &P384PublicKey,
        form: SignatureForm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureRefused> {
        let asked = Asked {
            key: *key,
            form,
            message: message.to_vec(),
            signature: signature.to_vec(),
        };
        let answer = asked.answer();
        self.0.lock().map_err(|_| SignatureRefused)?.push(asked);
        answer
    }

    fn sha384(&self, parts: &[&[u8]]) -> [u8; 48] {
        AwsLc.sha384(parts)
    }
}

/// Knows the certificates, and checks the signature of each document.
struct ChainKnown(Remembering<AwsLc>);

impl SignatureVerifier for ChainKnown {
    fn verify_es384(
        &self,
        key: &P384PublicKey,
        form: SignatureForm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureRefused> {
        match form {
            SignatureForm::Der => self.0.verify_es384(key, form, message, signature),
            SignatureForm::Fixed => AwsLc.verify_es384(key, form, message, signature),
        }
    }

    fn sha384(&self, parts: &[&[u8]]) -> [u8; 48] {
        AwsLc.sha384(parts)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let rounds: u32 = arguments.next().ok_or("ROUNDS is missing")?.parse()?;
    let policy = Policy::builder()
        .dangerous_any_measurement()
        .dangerous_accept_debug()
        .build()?;
    for path in arguments {
        let document = fs::read(&path)?;
        let now = decode_unverified(&document)?.timestamp;
        let recording = Recording::default();
        let expected = verify_with(&document, &policy, now, &recording)?;
        let asked = recording.0.into_inner()?;
        let chain_known = ChainKnown(Remembering::new(AwsLc));
        let remembering = Remembering::new(AwsLc);
        let (mut one, mut five) = (u128::MAX, u128::MAX);
        let (mut cold, mut known_chain, mut known_document) = (u128::MAX, u128::MAX, u128::MAX);
        for _ in 0..rounds {
            let mut sum = 0_u128;
            for question in &asked {
                let (nanoseconds, answer) = timed(|| question.answer());
                answer?;
                if question.form == SignatureForm::Fixed {
                    one = one.min(nanoseconds);
                }
                sum = sum.saturating_add(nanoseconds);
            }
            five = five.min(sum);
            let (nanoseconds, claims) = timed(|| verify(&document, &policy, now));
            cold = cold.min(nanoseconds);
            let (nanoseconds, again) = timed(|| verify_with(&document, &policy, now, &chain_known));
            known_chain = known_chain.min(nanoseconds);
            let (nanoseconds, known) = timed(|| verify_with(&document, &policy, now, &remembering));
            known_document = known_document.min(nanoseconds);
            for answer in [claims, again, known] {
                if answer? != expected {
                    return Err("two answers about one document".into());
                }
            }
        }
        writeln!(
            io::stdout(),
            "{{\"verifications\": {}, \"one\": {one}, \"five\": {five}, \"cold\": {cold}, \
             \"known_chain\": {known_chain}, \"known_document\": {known_document}}}",
            asked.len()
        )?;
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (u128, T) {
    let start = Instant::now();
    let done = black_box(work());
    (start.elapsed().as_nanos(), done)
}
