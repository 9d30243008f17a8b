//! `cloister._native.devplane`.

#[pyo3::pymodule(gil_used = false)]
pub(crate) mod devplane {}
