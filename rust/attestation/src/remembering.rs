//! Signatures that were found good, remembered, so that they are not checked again.
//!
//! The four certificates of a chain change every few hours, documents every few minutes, connections
//! that bring the same document all the time. With this a verifier's steady state is one P-384
//! verification for a document of a known chain, and none for a document it has seen. Whether a
//! signature is good depends on nothing but its bytes, so what is remembered stays true; validity,
//! names, age and every other rule are checked each time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::signature::{P384PublicKey, SignatureForm, SignatureRefused, SignatureVerifier};

/// A [`SignatureVerifier`] over another one, with a bounded memory.
pub struct Remembering<V> {
    verifier: V,
    certificates: Mutex<Good>,
    documents: Mutex<Good>,
}

impl<V: SignatureVerifier> Remembering<V> {
    /// Remembers what `verifier` finds good: at most [`MAX_REMEMBERED`] signatures of certificates and
    /// [`MAX_REMEMBERED_DOCUMENTS`] of documents, each kind apart, so that many documents of one enclave
    /// push out no chain.
    pub fn new(verifier: V) -> Self {
        Self {
            verifier,
            certificates: Mutex::new(Good::at_most(MAX_REMEMBERED)),
            documents: Mutex::new(Good::at_most(MAX_REMEMBERED_DOCUMENTS)),
        }
    }

    fn memory(&self, form: SignatureForm) -> MutexGuard<'_, Good> {
        let memory = match form {
            SignatureForm::Der => &self.certificates,
            SignatureForm::Fixed => &self.documents,
        };
        memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: SignatureVerifier> SignatureVerifier for Remembering<V> {
    fn verify_es384(
        &self,
        key: &P384PublicKey,
        form: SignatureForm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureRefused> {
        if self.memory(form).has(key, message, signature) {
            return Ok(());
        }
        self.verifier.verify_es384(key, form, message, signature)?;
        self.memory(form).add(key, message, signature);
        Ok(())
    }

    fn sha384(&self, parts: &[&[u8]]) -> [u8; 48] {
        self.verifier.sha384(parts)
    }
}

impl<V> fmt::Debug for Remembering<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Remembering")
            .finish_non_exhaustive()
    }
}

/// Good signatures with what they are of; the oldest goes first.
struct Good {
    known: VecDeque<Known>,
    limit: usize,
}

/// Kept as it is and not as a digest: comparing is faster than hashing, and has no collisions.
struct Known {
    key: P384PublicKey,
    message: Box<[u8]>,
    signature: Box<[u8]>,
}

impl Good {
    fn at_most(limit: usize) -> Self {
        Self {
            known: VecDeque::new(),
            limit,
        }
    }

    /// Signatures differ in their first bytes, so that one message at most is compared.
    fn has(&self, key: &P384PublicKey, message: &[u8], signature: &[u8]) -> bool {
        self.known.iter().any(|known| {
            *known.signature == *signature && *known.message == *message && known.key == *key
        })
    }

    fn add(&mut self, key: &P384PublicKey, message: &[u8], signature: &[u8]) {
        // Two threads may have checked the same one.
        if self.has(key, message, signature) {
            return;
        }
        if self.known.len() >= self.limit {
            self.known.pop_front();
        }
        self.known.push_back(Known {
            key: *key,
            message: message.into(),
            signature: signature.into(),
        });
    }
}

/// Most signatures of certificates remembered: the chains of some 60 enclaves, less than 1 KiB each.
pub const MAX_REMEMBERED: usize = 256;
/// Most signatures of documents remembered, some 5 KiB each and at most
/// [`crate::document::MAX_DOCUMENT_BYTES`].
pub const MAX_REMEMBERED_DOCUMENTS: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Accepts signatures that start with 1, and counts.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl SignatureVerifier for &Counting {
        fn verify_es384(
            &self,
            _key: &P384PublicKey,
            _form: SignatureForm,
            _message: &[u8],
            signature: &[u8],
        ) -> Result<(), SignatureRefused> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if signature.first() == Some(&1) {
                Ok(())
            } else {
                Err(SignatureRefused)
            }
        }

        fn sha384(&self, _parts: &[&[u8]]) -> [u8; 48] {
            [0; 48]
        }
    }

    const KEY: P384PublicKey = P384PublicKey([4; 97]);
    const DER: SignatureForm = SignatureForm::Der;

    #[test]
    fn a_good_certificate_is_checked_once() {
        let counting = Counting::default();
        let remembering = Remembering::new(&counting);
        for _ in 0..3 {
            remembering
                .verify_es384(&KEY, DER, b"message", &[1])
                .unwrap();
        }
        assert_eq!(counting.0.load(Ordering::Relaxed), 1);
    }

    /// Another key, message or signature is another question; so is a border moved between two parts.
    #[test]
    fn only_the_very_same_signature_is_remembered() {
        let counting = Counting::default();
        let remembering = Remembering::new(&counting);
        remembering
            .verify_es384(&KEY, DER, b"message", &[1, 2])
            .unwrap();
        remembering
            .verify_es384(&P384PublicKey([5; 97]), DER, b"message", &[1, 2])
            .unwrap();
        remembering
            .verify_es384(&KEY, DER, b"massage", &[1, 2])
            .unwrap();
        remembering
            .verify_es384(&KEY, DER, b"message", &[1, 3])
            .unwrap();
        assert_eq!(counting.0.load(Ordering::Relaxed), 4);
        let moved = remembering.verify_es384(&KEY, DER, b"message\x01", &[2]);
        assert_eq!(moved, Err(SignatureRefused));
    }

    #[test]
    fn a_bad_signature_is_refused_each_time() {
        let counting = Counting::default();
        let remembering = Remembering::new(&counting);
        for _ in 0..2 {
            let answer = remembering.verify_es384(&KEY, DER, b"message", &[0]);
            assert_eq!(answer, Err(SignatureRefused));
        }
        assert_eq!(counting.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_good_document_is_checked_once_and_is_no_certificate() {
        let counting = Counting::default();
        let remembering = Remembering::new(&counting);
        for form in [SignatureForm::Fixed, DER, SignatureForm::Fixed, DER] {
            remembering
                .verify_es384(&KEY, form, b"message", &[1])
                .unwrap();
        }
        assert_eq!(counting.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_memory_is_bounded_and_each_kind_has_its_own() {
        let counting = Counting::default();
        let remembering = Remembering::new(&counting);
        remembering
            .verify_es384(&KEY, DER, b"the chain", &[1])
            .unwrap();
        for number in 0_u64..1000 {
            remembering
                .verify_es384(&KEY, SignatureForm::Fixed, &number.to_be_bytes(), &[1])
                .unwrap();
        }
        let kept = |form| remembering.memory(form).known.len();
        assert_eq!(kept(SignatureForm::Fixed), MAX_REMEMBERED_DOCUMENTS);
        assert_eq!(kept(DER), 1);
        for number in 0_u64..1000 {
            remembering
                .verify_es384(&KEY, DER, &number.to_be_bytes(), &[1])
                .unwrap();
        }
        assert_eq!(kept(DER), MAX_REMEMBERED);
    }
}
