//! `cloister._native.attest`: verification of attestation documents, and the simulated NSM for
//! development and tests.
//!
//! Documented in `python/cloister/_native/attest.pyi`, where Python readers look.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloister_attestation::{
    AwsLc, Claims, Decoded, Measurements, PCR_BYTES, PcrIndex, Pcrs, Policy, Remembering,
    TrustAnchor, UnixMillis, VerifyError, decode_unverified, verify_with,
};
use cloister_devplane::DevNsm;
use cloister_nsm::protocol::{Request, Response};
use cloister_nsm::{DocumentRequest, ErrorCode, NsmError};
use cloister_nsm_sim::{DevelopmentRoot, Forged, Simulator, Steered, Told};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::errors::cloister_error;

type Registers = Vec<(u64, Vec<u8>)>;

/// What a document must prove.
#[pyclass(frozen, name = "Policy", module = "cloister._native.attest")]
struct PyPolicy {
    policy: Policy,
    verifier: Remembering<AwsLc>,
}

#[pymethods]
impl PyPolicy {
    #[new]
    #[pyo3(signature = (
        measurements, *, root_der=None, max_age_ms, leeway_ms,
        dangerous_accept_debug=false, dangerous_any_measurement=false
    ))]
    fn new(
        py: Python<'_>,
        measurements: Vec<Registers>,
        root_der: Option<&[u8]>,
        max_age_ms: u64,
        leeway_ms: u64,
        dangerous_accept_debug: bool,
        dangerous_any_measurement: bool,
    ) -> PyResult<Self> {
        let refuse = |message: String| cloister_error(py, "PolicyError", &message);
        let mut builder = Policy::builder()
            .max_age(Duration::from_millis(max_age_ms))
            .leeway(Duration::from_millis(leeway_ms));
        if let Some(der) = root_der {
            let anchor =
                TrustAnchor::dangerous_root(der).map_err(|error| refuse(error.to_string()))?;
            builder = builder.anchor(anchor);
        }
        for registers in measurements {
            let set = measurement_set(registers).map_err(refuse)?;
            builder = builder.accept(set);
        }
        if dangerous_accept_debug {
            builder = builder.dangerous_accept_debug();
        }
        if dangerous_any_measurement {
            builder = builder.dangerous_any_measurement();
        }
        builder
            .build()
            .map(|policy| Self {
                policy,
                verifier: Remembering::new(AwsLc),
            })
            .map_err(|error| refuse(error.to_string()))
    }
}

fn measurement_set(registers: Registers) -> Result<Measurements, String> {
    let checked: Result<Vec<_>, String> = registers
        .into_iter()
        .map(|(index, value)| {
            let known = PcrIndex::new(index)
                .ok_or_else(|| format!("PCR{index} does not exist: indexes are 0 to 31"))?;
            let value = <[u8; PCR_BYTES]>::try_from(value)
                .map_err(|value| format!("{known} is {} bytes long, expected 48", value.len()))?;
            Ok((known, value))
        })
        .collect();
    Measurements::new(checked?).map_err(|error| error.to_string())
}

#[pyfunction]
#[pyo3(signature = (document, policy, *, now_ms, nonce=None, user_data=None))]
fn verify<'py>(
    py: Python<'py>,
    document: &[u8],
    policy: &Bound<'py, PyPolicy>,
    now_ms: u64,
    nonce: Option<&[u8]>,
    user_data: Option<&[u8]>,
) -> PyResult<Bound<'py, PyDict>> {
    // `PyPolicy` is frozen, so a plain reference to its contents may leave the interpreter.
    let PyPolicy { policy, verifier } = policy.get();
    let claims = py
        .detach(|| {
            let mut policy = policy.clone();
            if let Some(nonce) = nonce {
                policy = policy.with_nonce(nonce);
            }
            if let Some(user_data) = user_data {
                policy = policy.with_user_data(user_data);
            }
            verify_with(document, &policy, UnixMillis(now_ms), verifier)
        })
        .map_err(|error| refused(py, &error))?;
    claims_dict(py, &claims)
}

#[pyfunction]
fn decode<'py>(py: Python<'py>, document: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let decoded = py
        .detach(|| decode_unverified(document))
        .map_err(|error| refused(py, &error))?;
    decoded_dict(py, &decoded)
}

#[pyfunction]
fn subject_public_key_info<'py>(
    py: Python<'py>,
    certificate: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    cloister_attestation::subject_public_key_info(certificate)
        .map(|info| PyBytes::new(py, info))
        .map_err(|error| PyValueError::new_err(format!("the certificate {error}")))
}

/// The exception of the class that stands for `error`, with its hint.
fn refused(py: Python<'_>, error: &VerifyError) -> PyErr {
    let raised = cloister_error(py, error.code(), &error.to_string());
    match raised.value(py).setattr("hint", error.hint()) {
        Ok(()) => raised,
        Err(other) => other,
    }
}

fn claims_dict<'py>(py: Python<'py>, claims: &Claims) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("module_id", &claims.module_id)?;
    dict.set_item("timestamp_ms", claims.timestamp.0)?;
    dict.set_item("pcrs", pcrs_dict(py, &claims.pcrs)?)?;
    dict.set_item("public_key", bytes(py, claims.public_key.as_deref()))?;
    dict.set_item("user_data", bytes(py, claims.user_data.as_deref()))?;
    dict.set_item("nonce", bytes(py, claims.nonce.as_deref()))?;
    dict.set_item("is_debug", claims.is_debug)?;
    dict.set_item("certificate_not_after_ms", claims.certificate_not_after.0)?;
    Ok(dict)
}

fn decoded_dict<'py>(py: Python<'py>, decoded: &Decoded) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("module_id", &decoded.module_id)?;
    dict.set_item("timestamp_ms", decoded.timestamp.0)?;
    dict.set_item("pcrs", pcrs_dict(py, &decoded.pcrs)?)?;
    dict.set_item("public_key", bytes(py, decoded.public_key.as_deref()))?;
    dict.set_item("user_data", bytes(py, decoded.user_data.as_deref()))?;
    dict.set_item("nonce", bytes(py, decoded.nonce.as_deref()))?;
    dict.set_item("is_debug", decoded.is_debug)?;
    let certificates = PyList::empty(py);
    let all = decoded.cabundle.iter().chain([&decoded.certificate]);
    for (der, (not_before, not_after)) in all.zip(&decoded.validity) {
        certificates.append((PyBytes::new(py, der), not_before.0, not_after.0))?;
    }
    dict.set_item("certificates", certificates)?;
    Ok(dict)
}

fn pcrs_dict<'py>(py: Python<'py>, pcrs: &Pcrs) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (index, value) in pcrs.iter() {
        dict.set_item(index.number(), PyBytes::new(py, value))?;
    }
    Ok(dict)
}

fn bytes<'py>(py: Python<'py>, value: Option<&[u8]>) -> Option<Bound<'py, PyBytes>> {
    value.map(|value| PyBytes::new(py, value))
}

/// The simulated NSM of one enclave.
#[pyclass(frozen, name = "SimulatedNsm", module = "cloister._native.attest")]
pub(crate) struct PySimulatedNsm {
    root: DevelopmentRoot,
    module: Arc<Steered>,
}

#[pymethods]
impl PySimulatedNsm {
    #[new]
    #[pyo3(signature = (pcrs, *, module_id, now_ms, root_dir=None))]
    fn new(
        py: Python<'_>,
        pcrs: Vec<(u16, Vec<u8>)>,
        module_id: String,
        now_ms: u64,
        root_dir: Option<PathBuf>,
    ) -> PyResult<Self> {
        let measured = registers(pcrs)?;
        py.detach(|| {
            let now = UnixMillis(now_ms);
            let root = match root_dir {
                Some(dir) => DevelopmentRoot::load_or_create(&dir, now),
                None => DevelopmentRoot::generate(now),
            }
            .map_err(|error| error.to_string())?;
            Self::booted(root, measured, module_id, now)
        })
        .map_err(|message: String| cloister_error(py, "RunnerError", &message))
    }

    #[pyo3(signature = (pcrs, *, module_id, now_ms))]
    fn another(
        &self,
        py: Python<'_>,
        pcrs: Vec<(u16, Vec<u8>)>,
        module_id: String,
        now_ms: u64,
    ) -> PyResult<Self> {
        let measured = registers(pcrs)?;
        py.detach(|| Self::booted(self.root.clone(), measured, module_id, UnixMillis(now_ms)))
            .map_err(|message| cloister_error(py, "RunnerError", &message))
    }

    #[getter]
    fn root_der<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.root.certificate_der())
    }

    #[getter]
    fn root_pem(&self) -> String {
        self.root.certificate_pem()
    }

    #[pyo3(signature = (*, now_ms, user_data=None, nonce=None, public_key=None))]
    fn document<'py>(
        &self,
        py: Python<'py>,
        now_ms: u64,
        user_data: Option<Vec<u8>>,
        nonce: Option<Vec<u8>>,
        public_key: Option<Vec<u8>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let request = Request::Attestation(DocumentRequest {
            user_data,
            nonce,
            public_key,
        });
        let answer = py
            .detach(|| {
                let encoded = request.encode()?;
                Response::decode(&self.answer(&encoded, now_ms))
            })
            .map_err(|error: NsmError| PyValueError::new_err(error.to_string()))?;
        match answer {
            Response::Attestation { document } => Ok(PyBytes::new(py, &document)),
            Response::Error(code) => {
                let message = format!("the NSM refused `Attestation`: {}", code.name());
                Err(PyValueError::new_err(message))
            }
            _ => Err(PyValueError::new_err("the NSM answered another request")),
        }
    }

    #[pyo3(signature = (request, *, now_ms))]
    fn handle<'py>(&self, py: Python<'py>, request: &[u8], now_ms: u64) -> Bound<'py, PyBytes> {
        let answer = py.detach(|| self.answer(request, now_ms));
        PyBytes::new(py, &answer)
    }

    #[pyo3(signature = (
        *, now_ms, timestamp_ms, module_id, pcrs, user_data=None, nonce=None, public_key=None
    ))]
    #[expect(
        clippy::too_many_arguments,
        reason = "keyword-only fields of the document"
    )]
    fn forge<'py>(
        &self,
        py: Python<'py>,
        now_ms: u64,
        timestamp_ms: u64,
        module_id: String,
        pcrs: Vec<(u16, Vec<u8>)>,
        user_data: Option<Vec<u8>>,
        nonce: Option<Vec<u8>>,
        public_key: Option<Vec<u8>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let forged = Forged {
            module_id,
            timestamp: UnixMillis(timestamp_ms),
            pcrs: registers(pcrs)?,
            fields: DocumentRequest {
                user_data,
                nonce,
                public_key,
            },
        };
        py.detach(|| self.module.forge(&forged, UnixMillis(now_ms)))
            .map(|document| PyBytes::new(py, &document))
            .map_err(|error| cloister_error(py, "RunnerError", &error.to_string()))
    }

    fn tell_truth(&self) {
        self.module.tell(None);
    }

    fn tell_bytes(&self, document: Vec<u8>) {
        self.module.tell(Some(Told::Bytes(document)));
    }

    #[pyo3(signature = (*, user_data=None, nonce=None))]
    fn tell_fields(&self, user_data: Option<Vec<u8>>, nonce: Option<Vec<u8>>) {
        self.module.tell(Some(Told::Fields { user_data, nonce }));
    }

    fn tell_error(&self, code: &str) -> PyResult<()> {
        let known = ErrorCode::from_name(code);
        let code = known.ok_or_else(|| PyValueError::new_err("not an error code of the NSM"))?;
        self.module.tell(Some(Told::Error(code)));
        Ok(())
    }
}

impl PySimulatedNsm {
    fn booted(
        root: DevelopmentRoot,
        pcrs: Vec<(u16, [u8; PCR_BYTES])>,
        module_id: String,
        now: UnixMillis,
    ) -> Result<Self, String> {
        let simulator =
            Simulator::new(&root, pcrs, module_id, now).map_err(|error| error.to_string())?;
        let module = Arc::new(Steered::new(simulator, system_time));
        Ok(Self { root, module })
    }

    fn answer(&self, request: &[u8], now_ms: u64) -> Vec<u8> {
        self.module.answer(request, UnixMillis(now_ms))
    }

    /// The module as a development data plane takes it.
    pub(crate) fn as_dev_nsm(&self) -> DevNsm {
        DevNsm {
            module: Arc::clone(&self.module),
            root: self.root.clone(),
        }
    }
}

fn registers(pcrs: Vec<(u16, Vec<u8>)>) -> PyResult<Vec<(u16, [u8; PCR_BYTES])>> {
    pcrs.into_iter()
        .map(|(index, value)| {
            let value = value.try_into().map_err(|value: Vec<u8>| {
                let length = value.len();
                PyValueError::new_err(format!("PCR{index} is {length} bytes long, expected 48"))
            })?;
            Ok((index, value))
        })
        .collect()
}

/// The clock of a data plane over the module.
fn system_time() -> UnixMillis {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    let elapsed = elapsed.unwrap_or_default().as_millis();
    UnixMillis(u64::try_from(elapsed).unwrap_or(u64::MAX))
}

#[pymodule(gil_used = false)]
pub(crate) mod attest {
    #[pymodule_export]
    use super::{PyPolicy, PySimulatedNsm, decode, subject_public_key_info, verify};
}
