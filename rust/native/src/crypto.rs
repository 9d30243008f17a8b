//! `cloister._native.crypto`.

#[pyo3::pymodule(gil_used = false)]
pub(crate) mod crypto {}
