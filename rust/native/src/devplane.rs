//! `cloister._native.devplane`: the data plane without an enclave, for Python.
//!
//! Documented in `python/cloister/_native/devplane.pyi`, where Python readers look.

use std::path::PathBuf;
use std::time::Duration;

use cloister_devplane::{DevApiKey, DevError, DevOptions, DevPlane, LogOutput};
use cloister_transport::{Address, AddressError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::attest::PySimulatedNsm;
use crate::errors::cloister_error;

/// A running data plane.
#[pyclass(frozen, name = "DevPlane", module = "cloister._native.devplane")]
pub(crate) struct PyDevPlane(DevPlane);

/// Key, scopes, and the end of its validity in milliseconds since the Unix epoch.
type ApiKey = (String, Vec<String>, Option<u64>);

#[pymethods]
impl PyDevPlane {
    #[new]
    #[pyo3(signature = (
        config, *, listen, upstream, app_key_files, api_keys, env, workers, proxy_protocol,
        certificate, key, nsm_root_dir, nsm, logs, health, internal_api, bundle_life,
        start_timeout
    ))]
    #[expect(
        clippy::too_many_arguments,
        reason = "keyword-only settings of the Python side"
    )]
    fn new(
        py: Python<'_>,
        config: Vec<u8>,
        listen: &str,
        upstream: &str,
        app_key_files: Vec<Vec<u8>>,
        api_keys: Vec<ApiKey>,
        env: Vec<(String, Vec<u8>)>,
        workers: usize,
        proxy_protocol: bool,
        certificate: Option<Vec<u8>>,
        key: Option<Vec<u8>>,
        nsm_root_dir: Option<PathBuf>,
        nsm: Option<PyRef<'_, PySimulatedNsm>>,
        logs: Option<&str>,
        health: Option<&str>,
        internal_api: Option<&str>,
        bundle_life: Duration,
        start_timeout: Duration,
    ) -> PyResult<Self> {
        let mut options = DevOptions::new(config, address(listen)?, address(upstream)?);
        for file in app_key_files {
            let key = cloister_devplane::read_app_key(&file)
                .map_err(|error| cloister_error(py, "KeyFileError", &error.to_string()))?;
            options.app_keys.push(key);
        }
        options.api_keys = api_keys.into_iter().map(api_key).collect();
        options.env = env;
        options.workers = workers;
        options.proxy_protocol = proxy_protocol;
        options.certificate = certificate.zip(key);
        options.nsm_root_dir = nsm_root_dir;
        options.nsm = nsm.map(|module| module.as_dev_nsm());
        options.logs = match logs {
            None => LogOutput::Dropped,
            Some("-") => LogOutput::Stderr,
            Some(path) => LogOutput::File(path.into()),
        };
        options.health = health.map(address).transpose()?;
        options.internal_api = internal_api.map(address).transpose()?;
        options.bundle_life = bundle_life;
        options.start_timeout = start_timeout;
        let started = py.detach(|| DevPlane::start(options));
        Ok(Self(started.map_err(|error| to_python(py, &error))?))
    }

    #[getter]
    fn address(&self) -> String {
        self.0.address().to_string()
    }

    #[getter]
    fn internal_api(&self) -> Option<String> {
        self.0.internal_api().map(|at| at.to_string())
    }

    #[getter]
    fn health_address(&self) -> Option<String> {
        self.0.health_address().map(|at| at.to_string())
    }

    #[getter]
    fn ca_pem(&self) -> Option<String> {
        self.0.ca_pem().map(str::to_owned)
    }

    #[getter]
    fn nsm_root_pem(&self) -> String {
        self.0.nsm_root_pem().to_owned()
    }

    #[getter]
    fn nsm_root_der<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.nsm_root_der())
    }

    #[getter]
    fn api_keys(&self) -> Vec<String> {
        self.0.api_keys().to_vec()
    }

    #[getter]
    fn app_public_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.app_public_key())
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.0.stats();
        let dict = PyDict::new(py);
        dict.set_item("connections", stats.connections)?;
        dict.set_item("active_connections", stats.active_connections)?;
        dict.set_item("failed_handshakes", stats.failed_handshakes)?;
        dict.set_item("shed", stats.shed)?;
        dict.set_item("requests", stats.requests)?;
        dict.set_item("active_requests", stats.active_requests)?;
        dict.set_item("websockets", stats.websockets)?;
        dict.set_item("active_websockets", stats.active_websockets)?;
        dict.set_item("sessions", stats.sessions)?;
        dict.set_item("active_sessions", stats.active_sessions)?;
        dict.set_item("refused_headers", stats.refused_headers)?;
        dict.set_item("refused", stats.refused)?;
        dict.set_item("fields_opened", stats.fields_opened)?;
        dict.set_item("key_hits", stats.key_hits)?;
        dict.set_item("keys_derived", stats.keys_derived)?;
        dict.set_item("bytes_in", stats.bytes_in)?;
        dict.set_item("bytes_out", stats.bytes_out)?;
        Ok(dict)
    }

    fn health(&self) -> PyResult<String> {
        let health = self.0.health();
        serde_json::to_string(&health).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn replace_api_keys(&self, py: Python<'_>, api_keys: Vec<ApiKey>) -> PyResult<()> {
        let keys: Vec<_> = api_keys.into_iter().map(api_key).collect();
        let replaced = self.0.replace_api_keys(&keys);
        replaced.map_err(|error| to_python(py, &error))
    }

    fn hold_back_bundles(&self, is_held_back: bool) {
        self.0.hold_back_bundles(is_held_back);
    }

    fn drain(&self, py: Python<'_>, grace: Duration) -> PyResult<()> {
        let drained = py.detach(|| self.0.drain(grace));
        drained.map_err(|error| to_python(py, &error))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let stopped = py.detach(|| self.0.stop());
        stopped.map_err(|error| to_python(py, &error))
    }
}

fn api_key((value, scopes, not_after_ms): ApiKey) -> DevApiKey {
    DevApiKey {
        value,
        scopes,
        not_after_ms,
    }
}

fn address(text: &str) -> PyResult<Address> {
    text.parse()
        .map_err(|error: AddressError| PyValueError::new_err(error.to_string()))
}

fn to_python(py: Python<'_>, error: &DevError) -> PyErr {
    let class = match error {
        DevError::ApiKey { .. } | DevError::Config(_) => "ConfigError",
        DevError::AppKey { .. } => "KeyFileError",
        DevError::KeptRoot => "UsageError",
        DevError::Logs(_) => "OutputError",
        _ => "RunnerError",
    };
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    cloister_error(py, class, &message)
}

#[pyo3::pymodule(gil_used = false)]
pub(crate) mod devplane {
    #[pymodule_export]
    use super::PyDevPlane;
}
