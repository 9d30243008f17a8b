//! `cloister._native.attest`.

#[pyo3::pymodule(gil_used = false)]
pub(crate) mod attest {}
