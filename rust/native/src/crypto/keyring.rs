//! `cloister._native.crypto.Keyring`: the private halves that open ciphertexts.

use std::sync::{Arc, Mutex, TryLockError};
use std::time::Instant;

use cloister_ciphertext::{
    AppPrivateKey, KeyCache, KeyError, Keyring, OpenError, OpenPolicy, OpenSession, Opened,
    ScanLimits, Secp256k1PrivateKey, Token, ValueType, may_contain_token, open_file, open_json,
    wipe,
};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

use crate::errors::cloister_error;

/// Keys, and what was derived with them by whoever came last. One thread at a time has the cache; who
/// finds it taken derives for itself.
#[pyclass(frozen, name = "Keyring", module = "cloister._native.crypto")]
pub(crate) struct PyKeyring {
    keyring: Arc<Keyring>,
    cache: Mutex<KeyCache>,
    begun: Instant,
    accepts_debug: bool,
}

/// Type and clear text.
type Value<'py> = (&'static str, Bound<'py, PyBytes>);

#[pymethods]
impl PyKeyring {
    #[new]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "arguments are converted into values"
    )]
    #[pyo3(signature = (keys, *, dangerous_accept_debug = false))]
    fn new(
        py: Python<'_>,
        keys: Vec<(String, PyBackedBytes)>,
        dangerous_accept_debug: bool,
    ) -> PyResult<Self> {
        let keyring = keyring(&keys)
            .map_err(|error| cloister_error(py, "KeyFileError", &error.to_string()))?;
        let keyring = Arc::new(keyring);
        Ok(Self {
            cache: Mutex::new(KeyCache::new(Arc::clone(&keyring))),
            keyring,
            begun: Instant::now(),
            accepts_debug: dangerous_accept_debug,
        })
    }

    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let newest = self.keyring.newest()?;
        Some(PyBytes::new(py, newest.compressed()))
    }

    /// Tokens that are none come back as `None`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "arguments are converted into values"
    )]
    fn decrypt_values<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<PyBackedStr>,
    ) -> PyResult<Vec<Option<Value<'py>>>> {
        let opened = py.detach(|| {
            self.with_session(|session| {
                let open = |text: &PyBackedStr| {
                    let token = Token::parse(text.as_bytes());
                    token
                        .map(|token| session.open(text.as_bytes(), &token))
                        .transpose()
                };
                tokens.iter().map(open).collect::<Result<Vec<_>, _>>()
            })
        });
        let opened = opened.map_err(|error| unopened(py, error))?;
        let value = |opened: Opened| (name(opened.kind), PyBytes::new(py, &opened.clear));
        Ok(opened.into_iter().map(|one| one.map(value)).collect())
    }

    fn decrypt_json<'py>(
        &self,
        py: Python<'py>,
        document: Bound<'py, PyBytes>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = document.as_bytes();
        if bytes.len() < WORTH_DETACHING_BYTES && !may_contain_token(bytes) {
            return Ok(document);
        }
        let opened = py.detach(|| {
            may_contain_token(bytes).then(|| {
                // The limit of a document is its caller's memory.
                let limits = ScanLimits {
                    max_token: usize::MAX,
                    ..ScanLimits::default()
                };
                self.with_session(|session| open_json(bytes, limits, session))
            })
        });
        let Some(opened) = opened else {
            return Ok(document.clone());
        };
        let opened = opened
            .map_err(|error| cloister_error(py, "MalformedCiphertext", &error.to_string()))?;
        PyBytes::new_with(py, opened.len(), |to| {
            opened.write(to);
            Ok(())
        })
    }

    fn decrypt_file<'py>(&self, py: Python<'py>, file: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let clear = py.detach(|| self.with_session(|session| open_file(file, session)));
        clear
            .map(|clear| given(py, clear))
            .map_err(|error| unopened(py, error))
    }
}

impl PyKeyring {
    /// Lets `work` have a session that derives as many keys as it needs.
    fn with_session<T>(&self, work: impl FnOnce(&mut OpenSession<'_>) -> T) -> T {
        let policy = OpenPolicy {
            dangerous_accept_debug: self.accepts_debug,
            distinct_keys: u32::MAX,
        };
        let cache = match self.cache.try_lock() {
            Ok(cache) => cache,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return work(&mut OpenSession::new(&self.keyring, policy));
            }
        };
        cache.expire(self.begun.elapsed());
        let mut session = OpenSession::shared(&cache, policy);
        session.grant(u32::MAX);
        work(&mut session)
    }
}

fn keyring(keys: &[(String, PyBackedBytes)]) -> Result<Keyring, KeyError> {
    let (mut p256, mut secp256k1) = (Vec::new(), Vec::new());
    for (curve, scalar) in keys {
        let scalar: &[u8; 32] = scalar[..].try_into().map_err(|_| KeyError::Private)?;
        match curve.as_str() {
            "P-256" => p256.push(AppPrivateKey::from_bytes(scalar)?),
            "secp256k1" => secp256k1.push(Secp256k1PrivateKey::from_bytes(scalar)?),
            _ => return Err(KeyError::Curve),
        }
    }
    Keyring::with_secp256k1(p256, secp256k1)
}

/// A copy for the interpreter; the original is wiped.
fn given(py: Python<'_>, mut clear: Zeroizing<Vec<u8>>) -> Bound<'_, PyBytes> {
    let copy = PyBytes::new(py, &clear);
    wipe(&mut clear);
    copy
}

fn name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Boolean => "boolean",
        ValueType::Number => "number",
        ValueType::String => "string",
    }
}

fn unopened(py: Python<'_>, error: OpenError) -> PyErr {
    cloister_error(py, "MalformedCiphertext", &error.to_string())
}

/// A search shorter than this costs less than to leave the interpreter.
const WORTH_DETACHING_BYTES: usize = 4096;
