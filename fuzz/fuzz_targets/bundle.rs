//! Any bytes as a sealed bundle, as what is inside the seal, and as what is inside the signature.
//!
//! The first byte chooses the layer: below the outermost, the target signs and seals what it is given,
//! so that the readers behind the cryptography are reached. 32 times `R` stand for the recipient's
//! digest, which a corpus cannot know.

#![no_main]

use std::convert::Infallible;
use std::sync::LazyLock;

use aws_lc_rs::signature::Ed25519KeyPair;
use cloister_attestation::cbor::Writer;
use cloister_sealing::{
    BootKey, Bundle, Expected, Random, RandomError, ServiceKey, open_bundle, recipient_digest,
    seal_bundle,
};
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{
    Deserializable as _, Kem, OpModeS, Serializable as _, aead::AesGcm256, kdf::HkdfSha256,
    kem::X25519HkdfSha256,
};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

const CHALLENGE: [u8; 32] = [7; 32];
const PCR0: [u8; 48] = [9; 48];
const CONTEXT: &[u8] = b"cloister/bundle/v1";
const PROTECTED: [u8; 3] = [0xA1, 0x01, 0x27];

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

impl TryRng for Counting {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        Random::fill(self, out).expect("it counts");
        Ok(())
    }
}

impl TryCryptoRng for Counting {}

struct Fixture {
    signer: ServiceKey,
    pair: Ed25519KeyPair,
    boot: BootKey,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let signer = ServiceKey::generate(&mut Counting(1)).expect("a seed");
    Fixture {
        pair: Ed25519KeyPair::from_seed_unchecked(signer.seed()).expect("a seed"),
        signer,
        boot: BootKey::generate(&mut Counting(2)).expect("a key"),
    }
});

fn signed(payload: &[u8]) -> Vec<u8> {
    let mut structure = Writer::new();
    structure.array(4).text("Signature1").bytes(&PROTECTED).bytes(CONTEXT).bytes(payload);
    let signature = FIXTURE.pair.sign(&structure.into_bytes());
    let mut out = Writer::new();
    out.array(4).bytes(&PROTECTED).map(0).bytes(payload).bytes(signature.as_ref());
    out.into_bytes()
}

fn sealed(signed: &[u8]) -> Vec<u8> {
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(FIXTURE.boot.public());
    let aad = [Uuid::nil().as_bytes().as_slice(), &CHALLENGE].concat();
    let (encapsulated, ciphertext) =
        hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public.expect("a point"),
            CONTEXT,
            signed,
            &aad,
            &mut Counting(3),
        )
        .expect("it seals");
    [encapsulated.to_bytes().as_slice(), &ciphertext].concat()
}

fn open(sealed: &[u8]) -> Option<Bundle> {
    let keys = [FIXTURE.signer.public()];
    let expected = Expected {
        service_keys: &keys,
        enclave: Uuid::nil(),
        challenge: &CHALLENGE,
        pcr0: &PCR0,
        minimum_version: 2,
        now_ms: 1000,
    };
    let bundle = open_bundle(sealed, &FIXTURE.boot, &expected).ok()?;
    assert!(bundle.v == 1 && bundle.enclave.is_nil() && bundle.challenge == CHALLENGE);
    assert!(bundle.pcr0 == PCR0 && bundle.version >= 2 && bundle.not_after > 1000);
    Some(bundle)
}

fuzz_target!(|data: &[u8]| {
    let Some((layer, bytes)) = data.split_first() else { return };
    let bundle = match layer % 3 {
        0 => open(bytes),
        1 => open(&sealed(bytes)),
        _ => {
            let mut payload = bytes.to_vec();
            if let Some(at) = payload.windows(32).position(|window| window == [b'R'; 32]) {
                payload[at..at + 32].copy_from_slice(&recipient_digest(FIXTURE.boot.public()));
            }
            open(&sealed(&signed(&payload)))
        }
    };
    if let Some(bundle) = bundle {
        // What was read can be written and reads the same.
        let random = &mut Counting(4);
        let again = seal_bundle(&bundle, &FIXTURE.signer, FIXTURE.boot.public(), random);
        assert_eq!(open(&again.expect("within its limits")), Some(bundle));
    }
});
