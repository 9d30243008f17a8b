//! Sealed objects: what enclaves of one image keep at their host and share without a leader.
//!
//! An object is sealed with AES-256-GCM under a key that depends on the enclave's sealing secret, on
//! the image (PCR0, PCR1, PCR2) and on the object's name, and is bound to the enclave's uuid, its
//! name and its version (wire specification §3, "Sealed objects"). So an image cannot open what
//! another image sealed (T-22), and a host that keeps the bytes can neither read nor move them
//! (T-12). It can still give back an older object: that is noticed by the *head*, version and
//! SHA-256, which the platform records for those that prove to be the image ([`Sealer::head_proof`])
//! and sends in every bundle. Who checks objects against heads is the data plane.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{hkdf, hmac};
use cloister_ciphertext::Random;
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::error::SealingError;

/// The registers that say which image it is: PCR0, PCR1 and PCR2.
pub type ImageRegisters = [[u8; 48]; 3];

/// The secret of one enclave that its sealing keys are made from. Wiped when dropped, not printed.
#[derive(PartialEq, Eq)]
pub struct SealingSecret {
    /// Boxed: a secret that is moved would leave a copy where it was.
    bytes: Box<Zeroizing<[u8; 32]>>,
}

impl SealingSecret {
    /// Copies the secret from where it is read to where it stays; nothing is in between.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut secret = Box::new(Zeroizing::new([0; 32]));
        secret.copy_from_slice(bytes);
        Self { bytes: secret }
    }

    /// The secret, for the platform's store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

/// The same from bytes that are held by value, which is for those that are no secret: tests.
#[expect(non_snake_case, reason = "reads as the type that it makes")]
pub fn SealingSecret(bytes: Zeroizing<[u8; 32]>) -> SealingSecret {
    SealingSecret {
        bytes: Box::new(bytes),
    }
}

/// Who may open what is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Every image of this enclave whose measured configuration says so as well.
    DangerousAcrossDeployments,
    /// Enclaves of the same image alone.
    SameImage,
}

/// Why a sealed object, or what is said about one, is refused.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ObjectError {
    /// Sealed by another image or enclave, under another name, or changed since.
    #[error("the object cannot be opened: another image or enclave sealed it, or it was changed")]
    CannotOpen,
    /// Not one of ours, or of a version that this program does not read.
    #[error("the object has a form that this program does not read")]
    Malformed,
    /// The proof was not made by an enclave of this image.
    #[error("the head was not proved by an enclave of this image")]
    Proof,
}

/// Seals and opens the objects of one image of one enclave.
pub struct Sealer {
    secret: SealingSecret,
    enclave: Uuid,
    image: ImageRegisters,
    sharing: Sharing,
}

impl Sealer {
    /// For the image with these registers.
    pub fn new(
        secret: SealingSecret,
        enclave: Uuid,
        image: ImageRegisters,
        sharing: Sharing,
    ) -> Self {
        Self {
            secret,
            enclave,
            image,
            sharing,
        }
    }

    /// The whole name of an object of this `kind`: images do not overwrite each other's.
    pub fn name(&self, kind: &str) -> String {
        match self.sharing {
            Sharing::DangerousAcrossDeployments => format!("{kind}.{SHARED_SCOPE}"),
            Sharing::SameImage => format!("{kind}.{}", scope(&self.image)),
        }
    }

    /// Seals `clear` as this version of the object `name`.
    ///
    /// The result is `0x01 ‖ version (8 bytes, big-endian) ‖ nonce (12 bytes) ‖ ciphertext ‖ tag`.
    ///
    /// # Errors
    ///
    /// [`SealingError::OverLimit`] for more than [`MAX_OBJECT_BYTES`], [`SealingError::Random`].
    pub fn seal(
        &self,
        name: &str,
        version: u64,
        clear: &[u8],
        random: &mut dyn Random,
    ) -> Result<Vec<u8>, SealingError> {
        let over = SealingError::OverLimit { field: "object" };
        if clear.len() > MAX_OBJECT_BYTES {
            return Err(over);
        }
        let mut nonce = [0; NONCE_BYTES];
        random.fill(&mut nonce).map_err(|_| SealingError::Random)?;
        let mut out = Vec::with_capacity(clear.len().saturating_add(OVERHEAD_BYTES));
        out.push(FORM);
        out.extend_from_slice(&version.to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(clear);
        // Encrypted where it lies: no second copy of it is made.
        let (_, body) = out
            .split_at_mut_checked(HEAD_BYTES)
            .ok_or(SealingError::OverLimit { field: "object" })?;
        let tag = self
            .key(name)
            .ok_or(SealingError::OverLimit { field: "object" })?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(self.associated_data(name, version)),
                body,
            )
            .map_err(|_| over)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens an object that is called `name`, and gives the version that it was sealed as.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Malformed`], [`ObjectError::CannotOpen`].
    pub fn open(
        &self,
        name: &str,
        sealed: &[u8],
    ) -> Result<(u64, Zeroizing<Vec<u8>>), ObjectError> {
        let (head, body) = sealed
            .split_at_checked(HEAD_BYTES)
            .ok_or(ObjectError::Malformed)?;
        let (form, head) = head.split_first().ok_or(ObjectError::Malformed)?;
        let (version, nonce) = head
            .split_first_chunk::<8>()
            .ok_or(ObjectError::Malformed)?;
        if *form != FORM || body.len() > MAX_OBJECT_BYTES.saturating_add(OVERHEAD_BYTES) {
            return Err(ObjectError::Malformed);
        }
        let version = u64::from_be_bytes(*version);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| ObjectError::Malformed)?;
        let mut clear = Zeroizing::new(body.to_vec());
        let length = self
            .key(name)
            .ok_or(ObjectError::CannotOpen)?
            .open_in_place(
                nonce,
                Aad::from(self.associated_data(name, version)),
                clear.as_mut_slice(),
            )
            .map_err(|_| ObjectError::CannotOpen)?
            .len();
        clear.truncate(length);
        Ok((version, clear))
    }

    /// What proves to the platform that an enclave of this image says that `name` has this head.
    pub fn head_proof(&self, name: &str, version: u64, sha256: &[u8; 32]) -> [u8; 32] {
        let mut proof = [0; 32];
        // A derivation of 32 bytes does not fail; if it did, this would be no proof.
        if let Some(key) = proof_key(&self.secret, &self.image) {
            let said = said(self.enclave, name, version, sha256);
            for (to, from) in proof.iter_mut().zip(hmac::sign(&key, &said).as_ref()) {
                *to = *from;
            }
        }
        proof
    }

    /// The key of one object. A derivation of 32 bytes does not fail; it is `None` if it did.
    fn key(&self, name: &str) -> Option<LessSafeKey> {
        let image = self.image.concat();
        let salt: &[u8] = match self.sharing {
            Sharing::DangerousAcrossDeployments => SHARED_SALT,
            Sharing::SameImage => &image,
        };
        let key = derive(&self.secret, salt, name.as_bytes())?;
        UnboundKey::new(&AES_256_GCM, key.as_slice())
            .ok()
            .map(LessSafeKey::new)
    }

    fn associated_data(&self, name: &str, version: u64) -> Vec<u8> {
        [
            self.enclave.as_bytes(),
            name.as_bytes(),
            &version.to_be_bytes(),
        ]
        .concat()
    }
}

/// Checks that an enclave of `image` says that the object `name` has this head.
///
/// # Errors
///
/// [`ObjectError::Proof`].
pub fn verify_head(
    secret: &SealingSecret,
    image: &ImageRegisters,
    enclave: Uuid,
    head: (&str, u64, &[u8; 32]),
    proof: &[u8],
) -> Result<(), ObjectError> {
    let (name, version, sha256) = head;
    let said = said(enclave, name, version, sha256);
    let key = proof_key(secret, image).ok_or(ObjectError::Proof)?;
    hmac::verify(&key, &said, proof).map_err(|_| ObjectError::Proof)
}

/// What the names of an image's objects end with: 32 hexadecimal digits.
pub fn scope(image: &ImageRegisters) -> String {
    let whole = digest(&SHA256, &[SCOPE_CONTEXT, &image.concat()].concat());
    let half = whole.as_ref().get(..16).unwrap_or_default();
    cloister_attestation::hex(half)
}

/// SHA-256 of a sealed object: the second half of its head.
pub fn object_digest(sealed: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest(&SHA256, sealed).as_ref()) {
        *to = *from;
    }
    out
}

/// What a proof is made over. The name is between values of fixed length: there is one reading.
fn said(enclave: Uuid, name: &str, version: u64, sha256: &[u8; 32]) -> Vec<u8> {
    [
        enclave.as_bytes(),
        name.as_bytes(),
        &version.to_be_bytes(),
        sha256,
    ]
    .concat()
}

fn proof_key(secret: &SealingSecret, image: &ImageRegisters) -> Option<hmac::Key> {
    let key = derive(secret, &image.concat(), PROOF_INFO)?;
    Some(hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()))
}

/// HKDF-SHA-256 (RFC 5869).
fn derive(secret: &SealingSecret, salt: &[u8], info: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret.as_bytes());
    let info = [info];
    let expanded = extracted.expand(&info, hkdf::HKDF_SHA256).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    expanded.fill(key.as_mut_slice()).ok()?;
    Some(key)
}

impl fmt::Debug for SealingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingSecret")
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("enclave", &self.enclave)
            .field("sharing", &self.sharing)
            .finish_non_exhaustive()
    }
}

/// Most bytes in an object, before it is sealed.
pub const MAX_OBJECT_BYTES: usize = 256 * 1024;
/// What names of objects end with that all images of an enclave share.
pub const SHARED_SCOPE: &str = "shared";
/// First byte: which form the rest has.
const FORM: u8 = 1;
/// Length of an AES-GCM nonce (NIST SP 800-38D §5.2.1.1). Random ones are safe for 2^32 objects under
/// one key (§8.3), and each name of each image has a key of its own.
const NONCE_BYTES: usize = 12;
const HEAD_BYTES: usize = 1 + 8 + NONCE_BYTES;
/// Head and tag.
const OVERHEAD_BYTES: usize = HEAD_BYTES + 16;
const SHARED_SALT: &[u8] = b"cloister/dangerous-share-across-deployments/v1";
const SCOPE_CONTEXT: &[u8] = b"cloister/object-scope/v1";
/// No object has this name: an object's name has no slash.
const PROOF_INFO: &[u8] = b"cloister/object-head/v1";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::tests::Counting;

    const IMAGE: ImageRegisters = [[1; 48], [2; 48], [3; 48]];
    const CLEAR: &[u8] = b"a private key";

    fn secret(byte: u8) -> SealingSecret {
        SealingSecret::from_bytes(&[byte; 32])
    }

    fn sealer() -> Sealer {
        Sealer::new(secret(7), Uuid::from_u128(9), IMAGE, Sharing::SameImage)
    }

    fn sealed() -> Vec<u8> {
        sealer().seal("tls", 3, CLEAR, &mut Counting(1)).unwrap()
    }

    fn opened(by: &Sealer, name: &str) -> Result<u64, ObjectError> {
        by.open(name, &sealed()).map(|(version, clear)| {
            assert_eq!(*clear, CLEAR);
            version
        })
    }

    #[test]
    fn another_enclave_of_the_same_image_opens_it() {
        assert_eq!(opened(&sealer(), "tls"), Ok(3));
    }

    /// Each of the registers counts, not PCR0 alone.
    #[test]
    fn t22_an_image_with_another_register_cannot_open_it() {
        for register in 0..3 {
            let mut image = IMAGE;
            image[register][47] ^= 1;
            let other = Sealer::new(secret(7), Uuid::from_u128(9), image, Sharing::SameImage);
            assert_eq!(opened(&other, "tls"), Err(ObjectError::CannotOpen));
            assert_ne!(other.name("tls"), sealer().name("tls"));
        }
        assert_eq!(opened(&sealer(), "tls"), Ok(3));
    }

    /// Registers that are moved around give another key too.
    #[test]
    fn t22_the_order_of_the_registers_counts() {
        let image = [IMAGE[1], IMAGE[0], IMAGE[2]];
        let other = Sealer::new(secret(7), Uuid::from_u128(9), image, Sharing::SameImage);
        assert_eq!(opened(&other, "tls"), Err(ObjectError::CannotOpen));
    }

    #[test]
    fn t12_an_object_under_another_name_enclave_or_secret_cannot_be_opened() {
        assert_eq!(opened(&sealer(), "acme"), Err(ObjectError::CannotOpen));
        let enclave = Sealer::new(secret(7), Uuid::from_u128(8), IMAGE, Sharing::SameImage);
        assert_eq!(opened(&enclave, "tls"), Err(ObjectError::CannotOpen));
        let app = Sealer::new(secret(8), Uuid::from_u128(9), IMAGE, Sharing::SameImage);
        assert_eq!(opened(&app, "tls"), Err(ObjectError::CannotOpen));
        assert_eq!(opened(&sealer(), "tls"), Ok(3));
    }

    /// The version is outside of the ciphertext, and still nobody can raise it.
    #[test]
    fn t12_an_older_object_cannot_be_given_a_newer_version() {
        let mut newer = sealed();
        newer[8] = 4;
        let refused = sealer().open("tls", &newer).map(drop);
        assert_eq!(refused, Err(ObjectError::CannotOpen));
    }

    #[test]
    fn images_share_only_when_each_says_so() {
        let share = Sharing::DangerousAcrossDeployments;
        let enclave = Uuid::from_u128(9);
        let first = Sealer::new(secret(7), enclave, IMAGE, share);
        let second = Sealer::new(secret(7), enclave, [[4; 48]; 3], share);
        assert_eq!(first.name("tls"), second.name("tls"));
        let sealed = first.seal("tls", 1, CLEAR, &mut Counting(1)).unwrap();
        assert_eq!(*second.open("tls", &sealed).unwrap().1, CLEAR);
        let alone = Sealer::new(secret(7), enclave, IMAGE, Sharing::SameImage);
        let refused = alone.open("tls", &sealed).map(drop);
        assert_eq!(refused, Err(ObjectError::CannotOpen));
    }

    #[test]
    fn t12_a_head_is_proved_by_the_image_and_by_nothing_else() {
        let (enclave, digest) = (Uuid::from_u128(9), object_digest(&sealed()));
        let proof = sealer().head_proof("tls", 3, &digest);
        let check = |secret: &SealingSecret, image, enclave, head: (&str, u64, &[u8; 32])| {
            verify_head(secret, image, enclave, head, &proof)
        };
        let good = secret(7);
        assert_eq!(check(&good, &IMAGE, enclave, ("tls", 3, &digest)), Ok(()));
        let refused = Err(ObjectError::Proof);
        assert_eq!(
            check(&secret(8), &IMAGE, enclave, ("tls", 3, &digest)),
            refused
        );
        assert_eq!(
            check(&good, &[[0; 48]; 3], enclave, ("tls", 3, &digest)),
            refused
        );
        assert_eq!(
            check(&good, &IMAGE, Uuid::nil(), ("tls", 3, &digest)),
            refused
        );
        assert_eq!(check(&good, &IMAGE, enclave, ("tlt", 3, &digest)), refused);
        assert_eq!(check(&good, &IMAGE, enclave, ("tls", 4, &digest)), refused);
        assert_eq!(check(&good, &IMAGE, enclave, ("tls", 3, &[0; 32])), refused);
        let cut = proof.get(..31).unwrap();
        assert_eq!(
            verify_head(&good, &IMAGE, enclave, ("tls", 3, &digest), cut),
            refused
        );
    }

    /// HKDF and AES-256-GCM as the page says them, made with Python's `cryptography`
    /// (`tests/vectors/sealing`), so that another implementation can be held against it.
    #[test]
    fn the_known_answer_opens() {
        let sealed = include_bytes!("../../../tests/vectors/sealing/object.bin");
        let (version, clear) = sealer().open("tls", sealed).unwrap();
        assert_eq!((version, clear.as_slice()), (5, &b"known answer"[..]));
    }

    #[test]
    fn what_is_not_an_object_is_malformed() {
        for bytes in [&[][..], &[1], &[1; 20], &[0; 40]] {
            let refused = sealer().open("tls", bytes).map(drop);
            assert_eq!(refused, Err(ObjectError::Malformed), "{bytes:?}");
        }
        let refused = sealer().open("tls", &[1; 21]).map(drop);
        assert_eq!(refused, Err(ObjectError::CannotOpen));
    }

    #[test]
    fn a_sealer_does_not_show_its_secret() {
        let text = format!("{:?} {:?}", sealer(), secret(7));
        assert!(!text.contains("7, 7"), "{text}");
    }

    proptest! {
        #[test]
        fn t12_a_changed_byte_is_refused(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut changed = sealed();
            sealer().open("tls", &changed).unwrap();
            let at = at.index(changed.len());
            changed[at] ^= flip;
            prop_assert!(sealer().open("tls", &changed).is_err());
        }

        #[test]
        fn any_bytes_come_back(clear in prop::collection::vec(any::<u8>(), 0..600), version: u64) {
            let sealed = sealer().seal("a", version, &clear, &mut Counting(3)).unwrap();
            let (read, opened) = sealer().open("a", &sealed).unwrap();
            prop_assert_eq!((read, opened.as_slice()), (version, clear.as_slice()));
        }
    }
}
