//! From a bundle to sealed bytes and back.

use std::convert::Infallible;

use cloister_ciphertext::Random;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{
    Deserializable as _, OpModeR, OpModeS, Serializable as _, aead::AesGcm256, kdf::HkdfSha256,
    kem::X25519HkdfSha256,
};
use uuid::Uuid;
use zeroize::{Zeroize as _, Zeroizing};

use crate::bundle::Bundle;
use crate::cose;
use crate::error::{BundleError, SealingError};
use crate::keys::{BootKey, ServiceKey, recipient};

/// Largest sealed bundle, in bytes: as base64 in JSON it has to fit the agent API's 1 MiB body.
pub const MAX_SEALED_BYTES: usize = 716_800;

/// HPKE `info` (RFC 9180 §5.1).
const INFO: &[u8] = b"cloister/bundle/v1";
/// Length of the encapsulated key, `Nenc` of DHKEM(X25519, HKDF-SHA256) (RFC 9180 §7.1).
const ENCAPSULATED_BYTES: usize = 32;

/// What an enclave checks a bundle against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Service keys of the measured configuration; one of them must have signed.
    pub service_keys: &'a [[u8; 32]],
    /// Its own uuid.
    pub enclave: Uuid,
    /// The challenge of this boot.
    pub challenge: &'a [u8; 32],
    /// Its own PCR0, as the NSM says it.
    pub pcr0: &'a [u8; 48],
    /// The newest version seen in this boot; 0 before the first.
    pub minimum_version: u64,
    /// Its clock, milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// Encodes, signs and seals a bundle.
///
/// `recipient_public` is the X25519 key of the boot the bundle is for: the `public_key` of a
/// document that was verified. The result is the encapsulated key, 32 bytes, and the ciphertext.
///
/// # Errors
///
/// [`SealingError::Recipient`], [`SealingError::OverLimit`], [`SealingError::Random`].
pub fn seal_bundle(
    bundle: &Bundle,
    signer: &ServiceKey,
    recipient_public: &[u8; 32],
    random: &mut dyn Random,
) -> Result<Vec<u8>, SealingError> {
    let public = recipient(recipient_public)?;
    let payload = Zeroizing::new(bundle.encode()?);
    let signed = cose::sign(&payload, signer);
    let mut drawn = Drawn::from(random)?;
    let aad = associated_data(bundle.enclave, &bundle.challenge);
    let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<
        AesGcm256,
        HkdfSha256,
        X25519HkdfSha256,
    >(&OpModeS::Base, &public, INFO, &signed, &aad, &mut drawn)
    .map_err(|_| SealingError::Recipient)?;
    if drawn.is_exhausted {
        return Err(SealingError::Random);
    }
    let mut sealed = encapsulated.to_bytes().to_vec();
    sealed.extend_from_slice(&ciphertext);
    if sealed.len() > MAX_SEALED_BYTES {
        return Err(SealingError::OverLimit { field: "bundle" });
    }
    Ok(sealed)
}

/// Opens a sealed bundle and makes every check of the protocol (wire specification §3).
///
/// # Errors
///
/// In this order: [`BundleError::TooLong`], [`BundleError::CannotOpen`] (a bundle for another
/// enclave, challenge or boot key ends here: they are associated data), [`BundleError::Signer`],
/// [`BundleError::Malformed`], [`BundleError::Enclave`], [`BundleError::Challenge`],
/// [`BundleError::Recipient`], [`BundleError::Pcr0`], [`BundleError::Version`],
/// [`BundleError::Expired`].
pub fn open_bundle(
    sealed: &[u8],
    boot_key: &BootKey,
    expected: &Expected<'_>,
) -> Result<Bundle, BundleError> {
    if sealed.len() > MAX_SEALED_BYTES {
        return Err(BundleError::TooLong {
            length: sealed.len(),
        });
    }
    let (encapsulated, ciphertext) = sealed
        .split_at_checked(ENCAPSULATED_BYTES)
        .ok_or(BundleError::CannotOpen)?;
    let encapsulated = <X25519HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(encapsulated)
        .map_err(|_| BundleError::CannotOpen)?;
    let aad = associated_data(expected.enclave, expected.challenge);
    let signed = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        boot_key.private(),
        &encapsulated,
        INFO,
        ciphertext,
        &aad,
    )
    .map(Zeroizing::new)
    .map_err(|_| BundleError::CannotOpen)?;
    let payload = cose::verify(&signed, expected.service_keys)?;
    let bundle = Bundle::decode(payload)?;
    check(&bundle, boot_key, expected)?;
    Ok(bundle)
}

/// What the signed content itself must say; the associated data already binds part of it.
fn check(bundle: &Bundle, boot_key: &BootKey, expected: &Expected<'_>) -> Result<(), BundleError> {
    if bundle.enclave != expected.enclave {
        return Err(BundleError::Enclave);
    }
    if bundle.challenge != *expected.challenge {
        return Err(BundleError::Challenge);
    }
    if bundle.recipient != recipient_digest(boot_key.public()) {
        return Err(BundleError::Recipient);
    }
    if bundle.pcr0 != *expected.pcr0 {
        return Err(BundleError::Pcr0);
    }
    if bundle.version < expected.minimum_version {
        return Err(BundleError::Version {
            version: bundle.version,
            seen: expected.minimum_version,
        });
    }
    if bundle.not_after <= expected.now_ms {
        return Err(BundleError::Expired {
            not_after: bundle.not_after,
            now: expected.now_ms,
        });
    }
    Ok(())
}

/// A bundle's `recipient`: SHA-256 of the X25519 public key.
pub fn recipient_digest(public: &[u8; 32]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public);
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}

fn associated_data(enclave: Uuid, challenge: &[u8; 32]) -> [u8; 48] {
    let mut aad = [0; 48];
    let parts = enclave.as_bytes().iter().chain(challenge);
    for (to, from) in aad.iter_mut().zip(parts) {
        *to = *from;
    }
    aad
}

/// Random bytes drawn beforehand: `hpke` wants a source that cannot fail, ours can.
struct Drawn {
    bytes: [u8; 64],
    used: usize,
    is_exhausted: bool,
}

impl Drawn {
    fn from(random: &mut dyn Random) -> Result<Self, SealingError> {
        let mut bytes = [0; 64];
        random.fill(&mut bytes).map_err(|_| SealingError::Random)?;
        Ok(Self {
            bytes,
            used: 0,
            is_exhausted: false,
        })
    }
}

impl TryRng for Drawn {
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
        let end = self.used.saturating_add(out.len());
        match self.bytes.get(self.used..end) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => self.is_exhausted = true,
        }
        self.used = end;
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use cloister_ciphertext::RandomError;
    use proptest::prelude::*;

    use super::*;
    use crate::bundle::{ApiKeyRecord, AppKey, Curve, EnvVar, Identity};
    use crate::object::SealingSecret;

    /// Bytes that differ from draw to draw, the same in every run.
    pub(crate) struct Counting(pub(crate) u8);

    impl Random for Counting {
        fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
            for byte in bytes {
                self.0 = self.0.wrapping_mul(5).wrapping_add(113);
                *byte = self.0;
            }
            self.0 = self.0.wrapping_add(1);
            Ok(())
        }
    }

    struct Empty;

    impl Random for Empty {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), RandomError> {
            Err(RandomError)
        }
    }

    const CHALLENGE: [u8; 32] = [7; 32];
    const PCR0: [u8; 48] = [9; 48];
    const NOW: u64 = 1_000_000;

    struct World {
        signer: ServiceKey,
        boot: BootKey,
        enclave: Uuid,
    }

    impl World {
        fn new() -> Self {
            Self {
                signer: ServiceKey::generate(&mut Counting(1)).unwrap(),
                boot: BootKey::generate(&mut Counting(2)).unwrap(),
                enclave: Uuid::from_bytes([3; 16]),
            }
        }

        fn bundle(&self) -> Bundle {
            Bundle {
                v: 1,
                enclave: self.enclave,
                deployment: "d1".to_owned(),
                version: 5,
                challenge: CHALLENGE,
                recipient: recipient_digest(self.boot.public()),
                pcr0: PCR0,
                issued_at: NOW,
                not_after: NOW + 900_000,
                app_keys: vec![AppKey {
                    id: "k1".to_owned(),
                    curve: Curve::P256,
                    private: Zeroizing::new([4; 32]),
                }],
                api_keys: vec![ApiKeyRecord {
                    id: "a1".to_owned(),
                    name: "ci".to_owned(),
                    sha256: [5; 32],
                    scopes: vec!["app".to_owned()],
                    not_after: Some(NOW + 1),
                }],
                env: vec![EnvVar {
                    name: "TOKEN".to_owned(),
                    value: Zeroizing::new(b"line\n\"quoted\" \xff".to_vec()),
                    secret: true,
                }],
                objects: BTreeMap::from([("tls".to_owned(), (2, [6; 32]))]),
                settings: BTreeMap::from([("reload".to_owned(), "none".to_owned())]),
                identity: Identity {
                    team: "t".to_owned(),
                    app: "a".to_owned(),
                    name: "hello".to_owned(),
                },
                sealing_secret: Some(SealingSecret::from_bytes(&[3; 32])),
            }
        }

        fn seal(&self, bundle: &Bundle) -> Vec<u8> {
            seal_bundle(bundle, &self.signer, self.boot.public(), &mut Counting(8)).unwrap()
        }

        /// Seals any bytes to this boot, as nobody who follows the protocol would.
        fn seal_bytes(&self, signed: &[u8]) -> Vec<u8> {
            let public = recipient(self.boot.public()).unwrap();
            let aad = associated_data(self.enclave, &CHALLENGE);
            let mut drawn = Drawn::from(&mut Counting(8)).unwrap();
            let (encapsulated, ciphertext) =
                hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                    &OpModeS::Base,
                    &public,
                    INFO,
                    signed,
                    &aad,
                    &mut drawn,
                )
                .unwrap();
            [encapsulated.to_bytes().as_slice(), &ciphertext].concat()
        }

        /// Signs any payload and seals it to this boot.
        fn seal_payload(&self, payload: &[u8]) -> Vec<u8> {
            self.seal_bytes(&cose::sign(payload, &self.signer))
        }

        fn open(&self, sealed: &[u8]) -> Result<Bundle, BundleError> {
            self.open_as(sealed, |_| {})
        }

        fn open_as(
            &self,
            sealed: &[u8],
            change: impl FnOnce(&mut Expected<'_>),
        ) -> Result<Bundle, BundleError> {
            let keys = [self.signer.public()];
            let mut expected = Expected {
                service_keys: &keys,
                enclave: self.enclave,
                challenge: &CHALLENGE,
                pcr0: &PCR0,
                minimum_version: 5,
                now_ms: NOW,
            };
            change(&mut expected);
            open_bundle(sealed, &self.boot, &expected)
        }
    }

    #[test]
    fn a_bundle_arrives_as_it_was_made() {
        let world = World::new();
        let opened = world.open(&world.seal(&world.bundle())).unwrap();
        assert_eq!(opened, world.bundle());
    }

    #[test]
    fn t08_another_signer_is_refused() {
        let world = World::new();
        let stranger = ServiceKey::generate(&mut Counting(77)).unwrap();
        let sealed = seal_bundle(
            &world.bundle(),
            &stranger,
            world.boot.public(),
            &mut Counting(8),
        );
        assert_eq!(world.open(&sealed.unwrap()), Err(BundleError::Signer));
        let sealed = world.seal(&world.bundle());
        assert_eq!(
            world.open_as(&sealed, |e| e.service_keys = &[]),
            Err(BundleError::Signer)
        );
        world.open(&sealed).unwrap();
    }

    #[test]
    fn t08_a_bundle_for_another_boot_cannot_be_opened() {
        let world = World::new();
        let other = BootKey::generate(&mut Counting(50)).unwrap();
        let sealed = seal_bundle(
            &world.bundle(),
            &world.signer,
            other.public(),
            &mut Counting(8),
        )
        .unwrap();
        assert_eq!(world.open(&sealed), Err(BundleError::CannotOpen));
    }

    #[test]
    fn t08_a_replayed_challenge_and_a_foreign_uuid_cannot_be_opened() {
        let world = World::new();
        let sealed = world.seal(&world.bundle());
        let refused = world.open_as(&sealed, |e| e.challenge = &[8; 32]);
        assert_eq!(refused, Err(BundleError::CannotOpen));
        let refused = world.open_as(&sealed, |e| e.enclave = Uuid::nil());
        assert_eq!(refused, Err(BundleError::CannotOpen));
        world.open(&sealed).unwrap();
    }

    /// The signed content is checked too: a platform that seals carelessly is no way in.
    #[test]
    fn t08_what_the_content_says_is_checked_as_well() {
        let world = World::new();
        let wrong = |change: fn(&mut Bundle)| {
            let mut bundle = world.bundle();
            change(&mut bundle);
            world.open(&world.seal(&bundle))
        };
        assert_eq!(
            wrong(|b| b.recipient = [0; 32]),
            Err(BundleError::Recipient)
        );
        assert_eq!(wrong(|b| b.pcr0 = [0; 48]), Err(BundleError::Pcr0));
        assert_eq!(
            wrong(|b| b.version = 4),
            Err(BundleError::Version {
                version: 4,
                seen: 5
            })
        );
        assert_eq!(
            wrong(|b| b.not_after = NOW),
            Err(BundleError::Expired {
                not_after: NOW,
                now: NOW
            })
        );
        wrong(|b| b.version = 6).unwrap();
    }

    /// A signed bundle of another enclave or boot, sealed anew to this one by somebody in between.
    #[test]
    fn t08_a_bundle_signed_for_another_enclave_or_challenge_is_refused() {
        let world = World::new();
        let resealed = |change: fn(&mut Bundle)| {
            let mut bundle = world.bundle();
            change(&mut bundle);
            world.open(&world.seal_payload(&bundle.encode().unwrap()))
        };
        let other = resealed(|b| b.enclave = Uuid::nil());
        assert_eq!(other, Err(BundleError::Enclave));
        let other = resealed(|b| b.challenge = [8; 32]);
        assert_eq!(other, Err(BundleError::Challenge));
        assert_eq!(resealed(|_| {}).unwrap(), world.bundle());
    }

    #[test]
    fn t08_trailing_bytes_are_refused_at_every_layer() {
        let world = World::new();
        let payload = world.bundle().encode().unwrap();
        let signed = cose::sign(&payload, &world.signer);
        let sealed = world.seal_bytes(&signed);
        world.open(&sealed).unwrap();

        let longer = |bytes: &[u8]| [bytes, &[0]].concat();
        assert_eq!(world.open(&longer(&sealed)), Err(BundleError::CannotOpen));
        let refused = world.open(&world.seal_bytes(&longer(&signed)));
        assert!(matches!(
            refused,
            Err(BundleError::Malformed {
                field: "signed",
                ..
            })
        ));
        let refused = world.open(&world.seal_payload(&longer(&payload)));
        assert!(matches!(
            refused,
            Err(BundleError::Malformed {
                field: "bundle",
                ..
            })
        ));
    }

    /// A COSE header that says something else is not passed over.
    #[test]
    fn t08_another_form_of_the_signature_is_refused() {
        let world = World::new();
        let signed = cose::sign(&world.bundle().encode().unwrap(), &world.signer);
        world.open(&world.seal_bytes(&signed)).unwrap();
        // 84 43 A10127 A0 …: the array, the protected header, the unprotected header.
        for (at, byte) in [(0, 0x83), (0, 0xD2), (1, 0x44), (4, 0x26), (5, 0xA1)] {
            let mut changed = signed.to_vec();
            changed[at] = byte;
            let refused = world.open(&world.seal_bytes(&changed));
            assert!(
                matches!(refused, Err(BundleError::Malformed { .. })),
                "{at}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_bundle_of_another_protocol_version_says_so() {
        let world = World::new();
        let mut bundle = world.bundle();
        bundle.v = 2;
        let error = world.open(&world.seal(&bundle)).unwrap_err();
        assert!(error.to_string().contains("`v`"), "{error}");
    }

    #[test]
    fn t08_an_oversized_bundle_is_refused_before_it_is_read() {
        let world = World::new();
        let long = vec![0; MAX_SEALED_BYTES + 1];
        assert_eq!(
            world.open(&long),
            Err(BundleError::TooLong { length: long.len() })
        );
    }

    #[test]
    fn without_randomness_nothing_is_sealed() {
        let world = World::new();
        let sealed = seal_bundle(
            &world.bundle(),
            &world.signer,
            world.boot.public(),
            &mut Empty,
        );
        assert!(matches!(sealed, Err(SealingError::Random)));
    }

    #[test]
    fn secrets_are_not_in_the_debug_text() {
        let text = format!("{:?}", World::new().bundle());
        assert!(
            !text.contains("quoted") && !text.contains("4, 4, 4"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn t08_a_changed_byte_is_refused(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let world = World::new();
            let mut sealed = world.seal(&world.bundle());
            world.open(&sealed).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            prop_assert_eq!(world.open(&sealed), Err(BundleError::CannotOpen));
        }

        /// Below the seal: whatever is changed in what was signed, the signature says so.
        #[test]
        fn t08_a_changed_byte_of_what_was_signed_is_refused(
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let world = World::new();
            let signed = cose::sign(&world.bundle().encode().unwrap(), &world.signer);
            world.open(&world.seal_bytes(&signed)).unwrap();
            let mut changed = signed.to_vec();
            let at = at.index(changed.len());
            changed[at] ^= flip;
            let refused = world.open(&world.seal_bytes(&changed));
            let is_refused = matches!(
                refused,
                Err(BundleError::Signer | BundleError::Malformed { field: "signed", .. })
            );
            prop_assert!(is_refused, "{:?}", refused);
        }

        /// Below the signature: a platform that writes nonsense breaks nothing.
        #[test]
        fn a_changed_payload_is_read_or_refused(
            at in any::<prop::sample::Index>(),
            bytes in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let world = World::new();
            let mut payload = world.bundle().encode().unwrap();
            let at = at.index(payload.len());
            let end = payload.len().min(at.saturating_add(bytes.len()));
            payload.splice(at..end, bytes);
            if let Ok(read) = Bundle::decode(&payload) {
                let again = Bundle::decode(&read.encode().unwrap());
                prop_assert_eq!(again, Ok(read));
            }
        }

        #[test]
        fn t08_a_shortened_bundle_is_refused(at in any::<prop::sample::Index>()) {
            let world = World::new();
            let mut sealed = world.seal(&world.bundle());
            let at = at.index(sealed.len());
            sealed.truncate(at);
            prop_assert_eq!(world.open(&sealed), Err(BundleError::CannotOpen));
        }
    }
}
