//! `cloister._native.crypto`: encryption for an app with its public key alone, and opening with the
//! private ones.
//!
//! Documented in `python/cloister/_native/crypto.pyi`, where Python readers look.

mod keyring;

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use cloister_ciphertext::{
    AppPublicKey, FileSealer, Random, RandomError, SealError, SealOptions, ValueType, Version,
    line_and_column, seal_json, seal_values,
};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::errors::cloister_error;

/// Origin of what Python encrypts (ciphertext specification §2).
const ORIGIN_PYTHON: u8 = 7;

#[pyfunction]
#[pyo3(signature = (values, public_key, *, version, role, unix_seconds))]
fn encrypt_values(
    py: Python<'_>,
    values: Vec<(String, PyBackedBytes)>,
    public_key: &[u8],
    version: &str,
    role: Option<String>,
    unix_seconds: u32,
) -> PyResult<Vec<String>> {
    let key = app_key(py, public_key)?;
    let options = options(py, version, role, unix_seconds)?;
    let values = values
        .into_iter()
        .map(|(kind, clear)| Ok((kind_of(py, &kind)?, clear)))
        .collect::<PyResult<Vec<_>>>()?;
    py.detach(|| seal_values(&values, &key, &options, &mut System))
        .map_err(|error| refused(py, error))
}

#[pyfunction]
#[pyo3(signature = (document, public_key, *, version, role, unix_seconds))]
fn encrypt_json<'py>(
    py: Python<'py>,
    document: &[u8],
    public_key: &[u8],
    version: &str,
    role: Option<String>,
    unix_seconds: u32,
) -> PyResult<Bound<'py, PyBytes>> {
    let key = app_key(py, public_key)?;
    let options = options(py, version, role, unix_seconds)?;
    py.detach(|| seal_json(document, &key, &options, &mut System))
        .map(|sealed| PyBytes::new(py, &sealed))
        .map_err(|error| not_sealed(py, document, error))
}

/// A file that is encrypted as it arrives. `None` once its end was made.
#[pyclass(frozen, name = "FileSealer", module = "cloister._native.crypto")]
struct PyFileSealer(Mutex<Option<FileSealer>>, Vec<u8>);

#[pymethods]
impl PyFileSealer {
    #[new]
    fn new(py: Python<'_>, public_key: &[u8]) -> PyResult<Self> {
        let key = app_key(py, public_key)?;
        let mut head = Vec::new();
        let sealer = py
            .detach(|| FileSealer::begin(&key, &mut System, &mut head))
            .map_err(|error| refused(py, error))?;
        Ok(Self(Mutex::new(Some(sealer)), head))
    }

    #[getter]
    fn head<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.1)
    }

    fn push<'py>(&self, py: Python<'py>, clear: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let made = py.detach(|| {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut out = Vec::with_capacity(clear.len().saturating_add(16));
            let sealer = state.as_mut()?;
            Some(sealer.push(clear, &mut out).map(|()| out))
        });
        made_of(py, made)
    }

    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let made = py.detach(|| {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut out = Vec::new();
            let sealer = state.take()?;
            Some(sealer.finish(&mut out).map(|()| out))
        });
        made_of(py, made)
    }
}

fn made_of(
    py: Python<'_>,
    made: Option<Result<Vec<u8>, SealError>>,
) -> PyResult<Bound<'_, PyBytes>> {
    match made {
        Some(Ok(made)) => Ok(PyBytes::new(py, &made)),
        Some(Err(error)) => Err(refused(py, error)),
        None => Err(cloister_error(
            py,
            "UsageError",
            "the end of this file was made already",
        )),
    }
}

fn app_key(py: Python<'_>, public_key: &[u8]) -> PyResult<AppPublicKey> {
    AppPublicKey::from_compressed(public_key)
        .map_err(|error| cloister_error(py, "KeyFileError", &error.to_string()))
}

fn options(
    py: Python<'_>,
    version: &str,
    role: Option<String>,
    unix_seconds: u32,
) -> PyResult<SealOptions> {
    let version = match version {
        "QkTC" => Version::QkTC,
        "Tk9D" => Version::Tk9D,
        _ => {
            let message = "the version is neither `QkTC` nor `Tk9D`";
            return Err(cloister_error(py, "UsageError", message));
        }
    };
    Ok(SealOptions {
        version,
        role,
        origin: ORIGIN_PYTHON,
        unix_seconds,
    })
}

fn kind_of(py: Python<'_>, kind: &str) -> PyResult<ValueType> {
    match kind {
        "boolean" => Ok(ValueType::Boolean),
        "number" => Ok(ValueType::Number),
        "string" => Ok(ValueType::String),
        _ => Err(cloister_error(
            py,
            "UsageError",
            "a value is a string, a number or a boolean",
        )),
    }
}

/// A document that is not JSON is said by line and column.
fn not_sealed(py: Python<'_>, document: &[u8], error: SealError) -> PyErr {
    match error {
        SealError::NotJson { offset } => {
            let (line, column) = line_and_column(document, offset);
            let message = format!("line {line}, column {column}: the document is not JSON");
            cloister_error(py, "InputError", &message)
        }
        _ => refused(py, error),
    }
}

fn refused(py: Python<'_>, error: SealError) -> PyErr {
    let class = match error {
        SealError::Role => "UsageError",
        _ => "InputError",
    };
    cloister_error(py, class, &error.to_string())
}

/// The system's random source.
struct System;

impl Random for System {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        SystemRandom::new()
            .fill(bytes)
            .map_err(|_unspecified| RandomError)
    }
}

#[pymodule(gil_used = false)]
pub(crate) mod crypto {
    #[pymodule_export]
    use super::{PyFileSealer, encrypt_json, encrypt_values, keyring::PyKeyring};
}
