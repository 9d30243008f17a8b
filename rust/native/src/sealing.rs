//! `cloister._native.sealing`: sealing of bundles for the platform, and opening them for tests of it.
//!
//! Documented in `python/cloister/_native/sealing.pyi`, where Python readers look.

use std::collections::BTreeMap;

use cloister_ciphertext::{Random, RandomError};
use cloister_sealing::bundle::VERSION;
use cloister_sealing::object::ImageRegisters;
use cloister_sealing::{
    ApiKeyRecord, AppKey, BootKey, Bundle, Curve, EnvVar, Expected, Identity, SealingSecret,
    ServiceKey,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The system's source of randomness.
struct System;

impl Random for System {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        aws_lc_rs::rand::fill(bytes).map_err(|_| RandomError)
    }
}

type AppKeyFields = (String, String, Vec<u8>);
type ApiKeyFields = (String, String, Vec<u8>, Vec<String>, Option<u64>);
type HeadFields = (String, u64, Vec<u8>);
type Variable = (String, Vec<u8>, bool);

#[pyfunction]
#[pyo3(signature = (*, service_seed, recipient, enclave, deployment, version, challenge, pcr0, issued_at, not_after, app_keys, api_keys, env, objects, sealing_secret, identity))]
#[expect(
    clippy::too_many_arguments,
    reason = "keyword-only fields of one record"
)]
fn seal_bundle<'py>(
    py: Python<'py>,
    service_seed: Vec<u8>,
    recipient: Vec<u8>,
    enclave: &str,
    deployment: String,
    version: u64,
    challenge: Vec<u8>,
    pcr0: Vec<u8>,
    issued_at: u64,
    not_after: u64,
    app_keys: Vec<AppKeyFields>,
    api_keys: Vec<ApiKeyFields>,
    env: Vec<Variable>,
    objects: Vec<HeadFields>,
    sealing_secret: Option<Vec<u8>>,
    identity: (String, String, String),
) -> PyResult<Bound<'py, PyBytes>> {
    let seed = Zeroizing::new(fixed::<32>("service_seed", service_seed)?);
    let recipient = fixed::<32>("recipient", recipient)?;
    let (team, app, name) = identity;
    let bundle = Bundle {
        v: VERSION,
        enclave: uuid(enclave)?,
        deployment,
        version,
        challenge: fixed("challenge", challenge)?,
        recipient: cloister_sealing::recipient_digest(&recipient),
        pcr0: fixed("pcr0", pcr0)?,
        issued_at,
        not_after,
        app_keys: app_keys.into_iter().map(app_key).collect::<PyResult<_>>()?,
        api_keys: api_keys.into_iter().map(api_key).collect::<PyResult<_>>()?,
        env: env
            .into_iter()
            .map(|(name, value, secret)| EnvVar {
                name,
                value: Zeroizing::new(value),
                secret,
            })
            .collect(),
        objects: objects.into_iter().map(head).collect::<PyResult<_>>()?,
        settings: BTreeMap::new(),
        identity: Identity { team, app, name },
        sealing_secret: sealing_secret.map(secret).transpose()?,
    };
    let sealed = py
        .detach(|| {
            let signer = ServiceKey::from_seed(&seed)?;
            cloister_sealing::seal_bundle(&bundle, &signer, &recipient, &mut System)
        })
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &sealed))
}

/// The key pair of one boot.
#[pyclass(frozen, name = "BootKey", module = "cloister._native.sealing")]
struct PyBootKey(BootKey);

#[pymethods]
impl PyBootKey {
    #[new]
    fn new() -> PyResult<Self> {
        BootKey::generate(&mut System)
            .map(Self)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[getter]
    fn public<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.public())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "keyword-only: what an enclave checks a bundle against"
    )]
    #[pyo3(signature = (sealed, *, service_keys, enclave, challenge, pcr0, minimum_version, now_ms))]
    fn open_bundle<'py>(
        &self,
        py: Python<'py>,
        sealed: &[u8],
        service_keys: Vec<Vec<u8>>,
        enclave: &str,
        challenge: Vec<u8>,
        pcr0: Vec<u8>,
        minimum_version: u64,
        now_ms: u64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let keys: Vec<[u8; 32]> = service_keys
            .into_iter()
            .map(|key| fixed("service_keys", key))
            .collect::<PyResult<_>>()?;
        let challenge = fixed("challenge", challenge)?;
        let pcr0 = fixed("pcr0", pcr0)?;
        let expected = Expected {
            service_keys: &keys,
            enclave: uuid(enclave)?,
            challenge: &challenge,
            pcr0: &pcr0,
            minimum_version,
            now_ms,
        };
        let bundle = py
            .detach(|| cloister_sealing::open_bundle(sealed, &self.0, &expected))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        as_dict(py, &bundle)
    }
}

fn as_dict<'py>(py: Python<'py>, bundle: &Bundle) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("enclave", bundle.enclave.to_string())?;
    dict.set_item("deployment", &bundle.deployment)?;
    dict.set_item("version", bundle.version)?;
    dict.set_item("issued_at", bundle.issued_at)?;
    dict.set_item("not_after", bundle.not_after)?;
    let app_keys: Vec<_> = bundle
        .app_keys
        .iter()
        .map(|key| {
            (
                &key.id,
                curve_name(key.curve),
                PyBytes::new(py, key.private.as_slice()),
            )
        })
        .collect();
    dict.set_item("app_keys", app_keys)?;
    let api_keys: Vec<_> = bundle
        .api_keys
        .iter()
        .map(|key| {
            (
                &key.id,
                &key.name,
                PyBytes::new(py, &key.sha256),
                &key.scopes,
                key.not_after,
            )
        })
        .collect();
    dict.set_item("api_keys", api_keys)?;
    let env: Vec<_> = bundle
        .env
        .iter()
        .map(|variable| {
            (
                &variable.name,
                PyBytes::new(py, &variable.value),
                variable.secret,
            )
        })
        .collect();
    dict.set_item("env", env)?;
    let objects = PyDict::new(py);
    for (name, (version, digest)) in &bundle.objects {
        objects.set_item(name, (version, PyBytes::new(py, digest)))?;
    }
    dict.set_item("objects", objects)?;
    let secret = bundle.sealing_secret.as_ref();
    let secret = secret.map(|secret| PyBytes::new(py, secret.as_bytes()));
    dict.set_item("sealing_secret", secret)?;
    let identity = &bundle.identity;
    dict.set_item("identity", (&identity.team, &identity.app, &identity.name))?;
    Ok(dict)
}

#[pyfunction]
#[pyo3(signature = (pcr0, pcr1, pcr2))]
fn object_scope(pcr0: Vec<u8>, pcr1: Vec<u8>, pcr2: Vec<u8>) -> PyResult<String> {
    Ok(cloister_sealing::object::scope(&image(pcr0, pcr1, pcr2)?))
}

#[pyfunction]
#[pyo3(signature = (*, sealing_secret, image, enclave, name, version, sha256, proof))]
fn verify_object_head(
    sealing_secret: Vec<u8>,
    image: (Vec<u8>, Vec<u8>, Vec<u8>),
    enclave: &str,
    name: &str,
    version: u64,
    sha256: Vec<u8>,
    proof: &[u8],
) -> PyResult<()> {
    let secret = secret(sealing_secret)?;
    let (pcr0, pcr1, pcr2) = image;
    let image = self::image(pcr0, pcr1, pcr2)?;
    let sha256 = fixed("sha256", sha256)?;
    let head = (name, version, &sha256);
    cloister_sealing::object::verify_head(&secret, &image, uuid(enclave)?, head, proof)
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

fn secret(bytes: Vec<u8>) -> PyResult<SealingSecret> {
    let bytes = Zeroizing::new(fixed("sealing_secret", bytes)?);
    Ok(SealingSecret::from_bytes(&bytes))
}

fn image(pcr0: Vec<u8>, pcr1: Vec<u8>, pcr2: Vec<u8>) -> PyResult<ImageRegisters> {
    Ok([
        fixed("pcr0", pcr0)?,
        fixed("pcr1", pcr1)?,
        fixed("pcr2", pcr2)?,
    ])
}

fn head((name, version, sha256): HeadFields) -> PyResult<(String, (u64, [u8; 32]))> {
    Ok((name, (version, fixed("sha256", sha256)?)))
}

fn app_key((id, curve, private): AppKeyFields) -> PyResult<AppKey> {
    let curve = match curve.as_str() {
        "P-256" => Curve::P256,
        "secp256k1" => Curve::Secp256k1,
        _ => return Err(PyValueError::new_err("an app key is on P-256 or secp256k1")),
    };
    Ok(AppKey {
        id,
        curve,
        private: Zeroizing::new(fixed("private", private)?),
    })
}

fn api_key((id, name, sha256, scopes, not_after): ApiKeyFields) -> PyResult<ApiKeyRecord> {
    Ok(ApiKeyRecord {
        id,
        name,
        sha256: fixed("sha256", sha256)?,
        scopes,
        not_after,
    })
}

fn curve_name(curve: Curve) -> &'static str {
    match curve {
        Curve::P256 => "P-256",
        Curve::Secp256k1 => "secp256k1",
    }
}

fn uuid(text: &str) -> PyResult<Uuid> {
    Uuid::parse_str(text).map_err(|_| PyValueError::new_err("`enclave` is not a uuid"))
}

/// A copy of fixed length; what it was copied from is wiped, for it may be a secret.
fn fixed<const N: usize>(name: &str, value: Vec<u8>) -> PyResult<[u8; N]> {
    let value = Zeroizing::new(value);
    <[u8; N]>::try_from(value.as_slice()).map_err(|_| {
        PyValueError::new_err(format!(
            "`{name}` is {} bytes long, expected {N}",
            value.len()
        ))
    })
}

#[pymodule(gil_used = false)]
pub(crate) mod sealing {
    #[pymodule_export]
    use super::{PyBootKey, object_scope, seal_bundle, verify_object_head};
}
