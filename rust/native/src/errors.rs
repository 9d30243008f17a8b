//! From a Rust error to the class of `cloister.errors` that Python callers catch.

use pyo3::prelude::*;

/// Makes an instance of the class `name` of `cloister.errors` with `message`.
///
/// The class is looked up when it is needed: an error is not a hot path, and the tree then has one
/// home, the Python module.
pub(crate) fn cloister_error(py: Python<'_>, name: &str, message: &str) -> PyErr {
    let made = py
        .import("cloister.errors")
        .and_then(|module| module.getattr(name))
        .and_then(|class| class.call1((message,)));
    match made {
        Ok(instance) => PyErr::from_value(instance),
        Err(error) => error,
    }
}
