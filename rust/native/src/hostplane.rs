//! `cloister._native.hostplane`: relay, agent server and small requests, for Python.
//!
//! Documented in `python/cloister/_native/hostplane.pyi`, where Python readers look.

use std::path::PathBuf;
use std::time::Duration;

use cloister_hostplane::request::RequestError;
use cloister_hostplane::{AgentOptions, AgentServer, Relay, RelayOptions};
use cloister_transport::{Address, Limits};
use pyo3::exceptions::{PyOSError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A running relay.
#[pyclass(frozen, name = "Relay", module = "cloister._native.hostplane")]
pub(crate) struct PyRelay(Relay);

#[pymethods]
impl PyRelay {
    #[new]
    #[pyo3(signature = (listen, to, *, proxy_protocol, max_connections, connect_timeout, idle_timeout, workers))]
    #[expect(
        clippy::too_many_arguments,
        reason = "keyword-only settings of the Python side"
    )]
    fn new(
        py: Python<'_>,
        listen: &str,
        to: &str,
        proxy_protocol: bool,
        max_connections: u64,
        connect_timeout: Duration,
        idle_timeout: Duration,
        workers: usize,
    ) -> PyResult<Self> {
        let mut options = RelayOptions::new(address(listen)?, address(to)?);
        options.proxy_protocol = proxy_protocol;
        options.max_connections = max_connections;
        options.connect_timeout = connect_timeout;
        options.limits = Limits {
            idle: Some(idle_timeout),
            stall: idle_timeout,
            ..Limits::default()
        };
        options.workers = workers;
        py.detach(|| Relay::start(options))
            .map(Self)
            .map_err(os_error)
    }

    #[getter]
    fn address(&self) -> String {
        self.0.address().to_string()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.0.stats();
        let dict = PyDict::new(py);
        dict.set_item("accepted", stats.accepted)?;
        dict.set_item("active", stats.active)?;
        dict.set_item("refused", stats.refused)?;
        dict.set_item("connect_errors", stats.connect_errors)?;
        dict.set_item("failed", stats.failed)?;
        dict.set_item("idle_closed", stats.idle_closed)?;
        dict.set_item("bytes_in", stats.bytes_in)?;
        dict.set_item("bytes_out", stats.bytes_out)?;
        dict.set_item("last_error", stats.last_error)?;
        Ok(dict)
    }

    fn retarget(&self, to: &str) -> PyResult<()> {
        self.0.retarget(address(to)?);
        Ok(())
    }

    fn drain(&self, py: Python<'_>, grace: Duration) -> u64 {
        py.detach(|| self.0.drain(grace))
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}

/// A running agent server.
#[pyclass(frozen, name = "AgentServer", module = "cloister._native.hostplane")]
pub(crate) struct PyAgentServer(AgentServer);

#[pymethods]
impl PyAgentServer {
    #[new]
    #[pyo3(signature = (listen, *, upstream, log_dir, enclave))]
    fn new(
        py: Python<'_>,
        listen: &str,
        upstream: PathBuf,
        log_dir: PathBuf,
        enclave: String,
    ) -> PyResult<Self> {
        let options = AgentOptions {
            listen: address(listen)?,
            upstream,
            log_dir,
            enclave,
            segments: cloister_hostplane::agent::SegmentLimits::default(),
        };
        py.detach(|| AgentServer::start(options))
            .map(Self)
            .map_err(os_error)
    }

    #[getter]
    fn address(&self) -> String {
        self.0.address().to_string()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.0.stats();
        let dict = PyDict::new(py);
        dict.set_item("requests", stats.requests)?;
        dict.set_item("refused", stats.refused)?;
        dict.set_item("failed", stats.failed)?;
        dict.set_item("records", stats.records)?;
        dict.set_item("duplicates", stats.duplicates)?;
        dict.set_item("acked", stats.acked)?;
        Ok(dict)
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}

#[pyfunction]
#[pyo3(signature = (address, method, path, *, timeout, body = None))]
fn request(
    py: Python<'_>,
    address: &str,
    method: &str,
    path: &str,
    timeout: Duration,
    body: Option<Vec<u8>>,
) -> PyResult<(u16, Vec<u8>)> {
    let to = self::address(address)?;
    let body = body.unwrap_or_default();
    let answer = py.detach(|| cloister_hostplane::request(&to, method, path, body, timeout));
    match answer {
        Ok(answer) => Ok((answer.status, answer.body)),
        Err(RequestError::Connect { source, .. }) => Err(os_error(source)),
        Err(error @ RequestError::Argument { .. }) => Err(PyValueError::new_err(error.to_string())),
        Err(error @ RequestError::TimedOut { .. }) => {
            Err(PyTimeoutError::new_err(error.to_string()))
        }
        Err(error) => Err(PyOSError::new_err(error.to_string())),
    }
}

#[pyfunction]
#[pyo3(name = "check_address")]
fn check_address(text: &str) -> PyResult<String> {
    Ok(address(text)?.to_string())
}

/// An `OSError` with its number, so that Python makes the class that belongs to it.
fn os_error(error: std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.kind().to_string())),
        None => error.into(),
    }
}

fn address(text: &str) -> PyResult<Address> {
    text.parse()
        .map_err(|error: cloister_transport::AddressError| PyValueError::new_err(error.to_string()))
}

#[pyo3::pymodule(gil_used = false)]
pub(crate) mod hostplane {
    #[pymodule_export]
    use super::{PyAgentServer, PyRelay, check_address, request};
}
