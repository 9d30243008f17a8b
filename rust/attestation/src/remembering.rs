//! Signatures of certificates that were found good, remembered, so that they are not checked again.
//!
//! The four certificates of a chain change every few hours, documents every few minutes; with this,
//! the steady state of a verifier is one P-384 verification instead of five. Whether a signature is
//! good depends on nothing but its bytes, so what is remembered stays true; validity, names and
//! every other rule of the chain are checked each time. Signatures of documents are not remembered.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA384};

use crate::signature::{P384PublicKey, SignatureForm, SignatureRefused, SignatureVerifier};

/// A [`SignatureVerifier`] over another one, with a bounded memory.
pub struct Remembering<V> {
    verifier: V,
    good: Mutex<VecDeque<[u8; 48]>>,
}

impl<V: SignatureVerifier> Remembering<V> {
    /// Remembers what `verifier` finds good, at most [`MAX_REMEMBERED`] signatures.
    pub fn new(verifier: V) -> Self {
        Self {
            verifier,
            good: Mutex::default(),
        }
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
        if form == SignatureForm::Fixed {
            return self.verifier.verify_es384(key, form, message, signature);
        }
        let Some(name) = name(key, message, signature) else {
            return self.verifier.verify_es384(key, form, message, signature);
        };
        if self
            .good
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&name)
        {
            return Ok(());
        }
        self.verifier.verify_es384(key, form, message, signature)?;
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= MAX_REMEMBERED {
            good.pop_front();
        }
        if !good.contains(&name) {
            good.push_back(name);
        }
        Ok(())
    }
}

impl<V> fmt::Debug for Remembering<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Remembering")
            .finish_non_exhaustive()
    }
}

/// One digest for key, message and signature. The lengths are in it, so that no other three parts
/// have the same bytes.
fn name(key: &P384PublicKey, message: &[u8], signature: &[u8]) -> Option<[u8; 48]> {
    let mut hash = Context::new(&SHA384);
    hash.update(&key.0);
    hash.update(&u64::try_from(message.len()).ok()?.to_be_bytes());
    hash.update(message);
    hash.update(signature);
    hash.finish().as_ref().try_into().ok()
}

/// Most signatures remembered: the chains of some 60 enclaves. Looking through them takes about a
/// microsecond.
pub const MAX_REMEMBERED: usize = 256;

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
    fn signatures_of_documents_are_checked_each_time() {
        let counting = Counting::default();
        let remembering = Remembering::new(&counting);
        for _ in 0..2 {
            remembering
                .verify_es384(&KEY, SignatureForm::Fixed, b"message", &[1])
                .unwrap();
        }
        assert_eq!(counting.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_memory_is_bounded() {
        let counting = Counting::default();
        let remembering = Remembering::new(&counting);
        for number in 0_u64..1000 {
            remembering
                .verify_es384(&KEY, DER, &number.to_be_bytes(), &[1])
                .unwrap();
        }
        assert_eq!(remembering.good.lock().unwrap().len(), MAX_REMEMBERED);
    }
}
