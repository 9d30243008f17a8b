//! `cloister._native`: the Rust half of the package, for Python.
//!
//! The rule of this crate is convert, detach, call, convert: no logic, no I/O, no async. Anything
//! worth a test of its own belongs in the crate that is wrapped. Documentation for Python readers is
//! in `python/cloister/_native/*.pyi`, checked by `stubtest`.

mod attest;
mod crypto;
mod devplane;
mod errors;
mod hostplane;
mod sealing;

#[pyo3::pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::attest::attest;
    #[pymodule_export]
    use crate::crypto::crypto;
    #[pymodule_export]
    use crate::devplane::devplane;
    #[pymodule_export]
    use crate::hostplane::hostplane;
    #[pymodule_export]
    use crate::sealing::sealing;

    /// Makes `import cloister._native.attest` work, as its stub says: an extension is no package.
    #[pymodule_init]
    fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let known = module.py().import("sys")?.getattr("modules")?;
        for name in ["attest", "crypto", "devplane", "hostplane", "sealing"] {
            known.set_item(format!("cloister._native.{name}"), module.getattr(name)?)?;
        }
        Ok(())
    }
}
