//! A simulated module that can be told to lie: for tests of those who verify its documents.
//!
//! What it lies about are documents without a public key, which is what clients and applications
//! are shown. A document with a public key is what an enclave is provisioned by, and stays true, so
//! that an enclave over this module boots whatever it was told.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloister_attestation::UnixMillis;
use cloister_nsm::protocol::{Request, Response};
use cloister_nsm::{DocumentRequest, ErrorCode, Exchange, NsmError};

use crate::error::SimulatorError;
use crate::simulator::{Forged, Simulator};

/// What is answered in place of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// These bytes, whatever was asked.
    Bytes(Vec<u8>),
    /// A refusal.
    Error(ErrorCode),
    /// A document with these fields where they are set, and what was asked for where they are not.
    Fields {
        /// Bytes in place of the caller's.
        user_data: Option<Vec<u8>>,
        /// Bytes in place of the verifier's.
        nonce: Option<Vec<u8>>,
    },
}

/// A [`Simulator`] behind a lock, with a clock, that answers as it was told.
pub struct Steered {
    simulator: Mutex<Simulator>,
    told: Mutex<Option<Told>>,
    clock: Box<dyn Fn() -> UnixMillis + Send + Sync>,
}

impl Steered {
    /// `simulator`, which takes its time from `clock` where no other is given.
    pub fn new(
        simulator: Simulator,
        clock: impl Fn() -> UnixMillis + Send + Sync + 'static,
    ) -> Self {
        Self {
            simulator: Mutex::new(simulator),
            told: Mutex::new(None),
            clock: Box::new(clock),
        }
    }

    /// What to answer from here on; `None` for the truth.
    pub fn tell(&self, told: Option<Told>) {
        *locked(&self.told) = told;
    }

    /// Answers one request at the time `now`, as [`Simulator::handle`] does.
    pub fn answer(&self, request: &[u8], now: UnixMillis) -> Vec<u8> {
        let told = locked(&self.told).clone();
        if let (Some(told), Ok(Request::Attestation(wanted))) = (told, Request::decode(request))
            && wanted.public_key.is_none()
        {
            return self.lie(told, wanted, now);
        }
        locked(&self.simulator).handle(request, now)
    }

    /// [`Simulator::forge`].
    ///
    /// # Errors
    ///
    /// [`SimulatorError::Crypto`].
    pub fn forge(&self, forged: &Forged, now: UnixMillis) -> Result<Vec<u8>, SimulatorError> {
        locked(&self.simulator).forge(forged, now)
    }

    fn lie(&self, told: Told, wanted: DocumentRequest, now: UnixMillis) -> Vec<u8> {
        let altered = match told {
            Told::Bytes(document) => return Response::Attestation { document }.encode(),
            Told::Error(code) => return Response::Error(code).encode(),
            Told::Fields { user_data, nonce } => DocumentRequest {
                user_data: user_data.or(wanted.user_data),
                nonce: nonce.or(wanted.nonce),
                public_key: None,
            },
        };
        match Request::Attestation(altered).encode() {
            Ok(request) => locked(&self.simulator).handle(&request, now),
            Err(_) => Response::Error(ErrorCode::InputTooLarge).encode(),
        }
    }
}

impl Exchange for Steered {
    fn exchange(&self, request: &[u8]) -> Result<Vec<u8>, NsmError> {
        Ok(self.answer(request, (self.clock)()))
    }
}

impl fmt::Debug for Steered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Steered").finish_non_exhaustive()
    }
}

/// A panic while a lock is held leaves whole values behind: each is set at once.
fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use cloister_attestation::decode_unverified;
    use cloister_nsm::NsmProvider as _;

    use super::*;
    use crate::root::DevelopmentRoot;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_123);

    fn module() -> Steered {
        let root = DevelopmentRoot::generate(NOW).unwrap();
        let simulator = Simulator::new(&root, [(0, [7; 48])], "i-sim", NOW).unwrap();
        Steered::new(simulator, || NOW)
    }

    fn asked(public_key: Option<Vec<u8>>) -> DocumentRequest {
        DocumentRequest {
            user_data: Some(b"true".to_vec()),
            nonce: Some(b"asked".to_vec()),
            public_key,
        }
    }

    #[test]
    fn fields_replace_what_was_asked_for_and_nothing_else() {
        let module = module();
        let told = Told::Fields {
            user_data: Some(b"false".to_vec()),
            nonce: None,
        };
        for (told, user_data) in [(None, b"true".as_slice()), (Some(told), b"false")] {
            module.tell(told);
            let document = module.attestation_document(&asked(None)).unwrap();
            let decoded = decode_unverified(&document).unwrap();
            assert_eq!(decoded.user_data.as_deref(), Some(user_data));
            assert_eq!(decoded.nonce.as_deref(), Some(b"asked".as_slice()));
        }
    }

    #[test]
    fn bytes_and_refusals_are_passed_on() {
        let module = module();
        module.tell(Some(Told::Bytes(b"garbage".to_vec())));
        assert_eq!(
            module.attestation_document(&asked(None)).unwrap(),
            b"garbage"
        );
        module.tell(Some(Told::Error(ErrorCode::InternalError)));
        let refused = module.attestation_document(&asked(None)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the NSM refused `Attestation`: InternalError"
        );
        module.tell(None);
        decode_unverified(&module.attestation_document(&asked(None)).unwrap()).unwrap();
    }

    /// An enclave that could not be provisioned would show nobody anything.
    #[test]
    fn what_an_enclave_is_provisioned_by_stays_true() {
        let module = module();
        module.tell(Some(Told::Bytes(b"garbage".to_vec())));
        let document = module
            .attestation_document(&asked(Some(vec![1; 32])))
            .unwrap();
        let decoded = decode_unverified(&document).unwrap();
        assert_eq!(decoded.user_data.as_deref(), Some(b"true".as_slice()));
        module.describe().unwrap();
    }
}
