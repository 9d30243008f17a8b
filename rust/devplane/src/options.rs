//! What a development data plane is made of, and how that can be wrong.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloister_ciphertext::{AppPrivateKey, Random};
use cloister_dataplane::provision::SystemRandom;
use cloister_dataplane::server::ServerError;
use cloister_nsm_sim::{DevelopmentRoot, RootError, SimulatorError, Steered};
use cloister_sealing::{ApiKeyRecord, SealingError};
use cloister_transport::Address;
use cloister_wire::config::ConfigError;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::logs::LogOutput;

/// Everything that can be chosen.
pub struct DevOptions {
    /// The attested configuration, JSON as in `/cloister/config.json`. Its `trust` is replaced.
    pub config: Vec<u8>,
    /// Where clients connect.
    pub listen: Address,
    /// Where the application listens.
    pub upstream: Address,
    /// P-256 keys of class development that open ciphertexts, oldest first; one is made when there
    /// is none.
    pub app_keys: Vec<Zeroizing<[u8; 32]>>,
    /// API keys; one is made when there is none.
    pub api_keys: Vec<DevApiKey>,
    /// Variables of the bundle.
    pub env: Vec<(String, Vec<u8>)>,
    /// Threads of the engine.
    pub workers: usize,
    /// Whether each connection begins with a PROXY v2 header.
    pub proxy_protocol: bool,
    /// Chain and key to serve, PEM; without them the development CA signs a key made here.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// Folder of the development root of the simulated NSM; without it a root is made that is kept
    /// nowhere.
    pub nsm_root_dir: Option<PathBuf>,
    /// A module of the caller's in place of the one with zero PCRs, for tests of clients.
    pub nsm: Option<DevNsm>,
    /// Where transaction logs go.
    pub logs: LogOutput,
    /// Where `/health` and `/metrics` are served.
    pub health: Option<Address>,
    /// Where the internal API is served.
    pub internal_api: Option<Address>,
    /// Life of a bundle; the data plane never uses one for longer than 15 minutes.
    pub bundle_life: Duration,
    /// Life of a certificate of the development CA; it is renewed after two thirds of that, and
    /// after a minute at the soonest.
    pub certificate_life: Duration,
    /// Longest wait until traffic is accepted.
    pub start_timeout: Duration,
}

/// A simulated NSM with PCRs of the caller's choice, so that a client can attest the data plane
/// without accepting debug enclaves.
#[derive(Clone, Debug)]
pub struct DevNsm {
    /// The module.
    pub module: Arc<Steered>,
    /// What its documents are signed under: a root that is kept nowhere, so that they are worth
    /// nothing to anybody but the process that made it.
    pub root: DevelopmentRoot,
}

/// An API key to accept.
#[derive(Clone)]
pub struct DevApiKey {
    /// The key itself, as clients present it.
    pub value: String,
    /// `app` or `enclave:<uuid>`.
    pub scopes: Vec<String>,
    /// End of validity, milliseconds since the Unix epoch.
    pub not_after_ms: Option<u64>,
}

impl DevOptions {
    /// Options with `config` between `listen` and `upstream`, and everything else as for a test.
    pub fn new(config: Vec<u8>, listen: Address, upstream: Address) -> Self {
        Self {
            config,
            listen,
            upstream,
            app_keys: Vec::new(),
            api_keys: Vec::new(),
            env: Vec::new(),
            workers: 1,
            proxy_protocol: false,
            certificate: None,
            nsm_root_dir: None,
            nsm: None,
            logs: LogOutput::Dropped,
            health: None,
            internal_api: None,
            bundle_life: Duration::from_secs(15 * 60),
            certificate_life: Duration::from_secs(90 * 86_400),
            start_timeout: Duration::from_secs(10),
        }
    }
}

/// No key, no variable and no configuration, which has keys in it.
impl fmt::Debug for DevOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DevOptions")
            .field("listen", &self.listen)
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DevApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DevApiKey")
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// Why a development data plane does not start.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum DevError {
    /// An API key that nobody could present.
    #[error("API key {position} is not 8 to 512 visible ASCII characters")]
    ApiKey {
        /// Its place, from 0.
        position: usize,
    },
    /// An app key that is none.
    #[error("app key {position} is not a P-256 private key")]
    AppKey {
        /// Its place, from 0.
        position: usize,
    },
    /// The development CA cannot be made.
    #[error("cannot make the development CA: {0}")]
    Authority(#[from] rcgen::Error),
    /// The configuration refuses the start.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// PCRs of the caller's choice under a root that others can find.
    #[error(
        "chosen PCRs need a root that is kept nowhere: documents under a kept one would pass for those of enclaves that really have them"
    )]
    KeptRoot,
    /// The log file cannot be opened.
    #[error("cannot open the log file")]
    Logs(#[source] std::io::Error),
    /// Keys cannot be made.
    #[error("{0}")]
    Sealing(#[from] SealingError),
    /// The random source of the process failed.
    #[error("the random source failed")]
    Random,
    /// The development root cannot be loaded or made.
    #[error("{0}")]
    Root(#[from] RootError),
    /// The data plane does not start.
    #[error("{0}")]
    Server(#[from] ServerError),
    /// The simulated NSM does not start.
    #[error("{0}")]
    Simulator(#[from] SimulatorError),
    /// The attestation policy of the platform cannot be made.
    #[error("{0}")]
    Policy(#[from] cloister_attestation::PolicyError),
}

/// App keys, and the public half of the newest.
pub(crate) struct AppKeys {
    pub(crate) keys: Vec<Zeroizing<[u8; 32]>>,
    pub(crate) newest: [u8; 33],
}

/// Checks the given app keys, or makes one.
pub(crate) fn app_keys(given: &[Zeroizing<[u8; 32]>]) -> Result<AppKeys, DevError> {
    let mut keys = given.to_vec();
    if keys.is_empty() {
        let made = AppPrivateKey::generate(&mut SystemRandom::new());
        let made = made.map_err(|_| DevError::Random)?;
        keys.push(Zeroizing::new(*made.scalar()));
    }
    let mut newest = [0; 33];
    for (position, key) in keys.iter().enumerate() {
        let key = AppPrivateKey::from_bytes(key).map_err(|_| DevError::AppKey { position })?;
        newest = *key.public().compressed();
    }
    Ok(AppKeys { keys, newest })
}

/// Checks the given API keys, or makes one; gives them and what a bundle says of them.
pub(crate) fn api_keys(given: &[DevApiKey]) -> Result<(Vec<String>, Vec<ApiKeyRecord>), DevError> {
    let made = if given.is_empty() {
        vec![DevApiKey {
            value: make_api_key()?,
            scopes: vec!["app".to_owned()],
            not_after_ms: None,
        }]
    } else {
        given.to_vec()
    };
    let mut records = Vec::with_capacity(made.len());
    for (position, key) in made.iter().enumerate() {
        let is_plain = key.value.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || !(8..=512).contains(&key.value.len()) {
            return Err(DevError::ApiKey { position });
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, key.value.as_bytes()).as_ref());
        records.push(ApiKeyRecord {
            id: id_of(&key.value).unwrap_or_else(|| format!("dev{position}")),
            name: format!("development key {position}"),
            sha256,
            scopes: key.scopes.clone(),
            not_after: key.not_after_ms,
        });
    }
    Ok((made.into_iter().map(|key| key.value).collect(), records))
}

/// The `<id>` of `ck_<id>_<43 characters>`.
fn id_of(value: &str) -> Option<String> {
    let rest = value.strip_prefix("ck_")?;
    let (id, _secret) = rest.split_at_checked(rest.len().checked_sub(43)?)?;
    id.strip_suffix('_').map(str::to_owned)
}

fn make_api_key() -> Result<String, DevError> {
    let mut secret = Zeroizing::new([0; 32]);
    let filled = SystemRandom::new().fill(secret.as_mut_slice());
    filled.map_err(|_| DevError::Random)?;
    Ok(format!("ck_dev_{}", URL_SAFE_NO_PAD.encode(*secret)))
}
