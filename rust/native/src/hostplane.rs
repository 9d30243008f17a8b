//! `cloister._native.hostplane`.

#[pyo3::pymodule(gil_used = false)]
pub(crate) mod hostplane {}
