//! `cloister._native.sealing`.

#[pyo3::pymodule(gil_used = false)]
pub(crate) mod sealing {}
