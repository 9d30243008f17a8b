//! The data plane without an enclave: for application developers, for tests, for timings.
//!
//! It joins the real data plane to a simulated NSM and to an agent in this process,
//! behind which a small platform checks attestation documents and signs and seals bundles, exactly
//! as a real one does. There is no way around provisioning. **Nothing here protects any data**: the
//! keys, the plaintext and the "enclave" are all in one ordinary process. Its PCRs are zero, so only a
//! client that accepts debug enclaves and names the development root attests it; a test may choose
//! others ([`DevNsm`]), under a root that is kept nowhere (T-23).

mod agent;
mod app_key;
mod authority;
mod logs;
mod options;
mod platform;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloister_attestation::UnixMillis;
use cloister_dataplane::clock::{Clock, System};
use cloister_dataplane::server::traffic::{StartTraffic, TrafficStats, engine};
use cloister_dataplane::server::{
    DataPlane, DataPlaneOptions, GivenCertificate, Handle, Ingress, ServerError,
};
use cloister_nsm_sim::{DevelopmentRoot, Simulator, Steered};
use cloister_transport::{Address, Bound};
use cloister_wire::config::EnclaveConfig;
use cloister_wire::health::Health;

use self::agent::MemoryAgent;
pub use self::app_key::{AppKeyError, read_app_key};
use self::authority::Authority;
pub use self::logs::LogOutput;
use self::logs::LogWriter;
pub use self::options::{DevApiKey, DevError, DevNsm, DevOptions};
use self::platform::Platform;

/// A data plane that runs in this process. Dropping it stops it.
pub struct DevPlane {
    handle: Handle,
    platform: Arc<Platform>,
    address: Address,
    ca_pem: Option<String>,
    nsm_root_pem: String,
    nsm_root_der: Vec<u8>,
    api_keys: Vec<String>,
    app_public_key: [u8; 33],
}

impl DevPlane {
    /// Starts one and waits until it accepts traffic.
    ///
    /// # Errors
    ///
    /// [`DevError`].
    pub fn start(options: DevOptions) -> Result<Self, DevError> {
        Self::start_with(options, engine())
    }

    /// As [`Self::start`], with an engine of the caller's.
    ///
    /// # Errors
    ///
    /// [`DevError`].
    pub fn start_with(options: DevOptions, traffic: StartTraffic) -> Result<Self, DevError> {
        let clock: Arc<dyn Clock> = Arc::new(System);
        let now = UnixMillis(clock.now_ms());
        let DevNsm { module, root } = match options.nsm {
            Some(given) if given.root.is_kept() => return Err(DevError::KeptRoot),
            Some(given) => given,
            None => debug_nsm(options.nsm_root_dir.as_deref(), &clock, now)?,
        };

        let (api_keys, records) = options::api_keys(&options.api_keys)?;
        let app_keys = options::app_keys(&options.app_keys)?;
        let app_public_key = app_keys.newest;
        let platform = Platform::new(
            platform::Contents {
                app_keys: app_keys.keys,
                api_keys: records,
                env: options.env,
            },
            root.dangerous_anchor()?,
            Arc::clone(&clock),
            options.bundle_life,
        )?;
        let config = Arc::new(config(&options.config, &platform)?);
        let platform = Arc::new(platform.for_enclave(&config));

        let certificate = options.certificate;
        // Without TLS here there is nothing to certify.
        let authority = if certificate.is_none() && config.tls.termination {
            Some(Authority::new(now, options.certificate_life)?)
        } else {
            None
        };
        let ca_pem = authority.as_ref().map(Authority::certificate_pem);
        let agent = MemoryAgent::new(
            Arc::clone(&platform),
            authority,
            LogWriter::open(options.logs).map_err(DevError::Logs)?,
            Arc::clone(&clock),
        );
        let ingress = Bound::open(&options.listen).map_err(|source| {
            DevError::Server(ServerError::Bind {
                address: options.listen.to_string(),
                source,
            })
        })?;
        let address = ingress.local_address();
        let handle = DataPlane::start(DataPlaneOptions {
            config,
            ingress: Ingress::Bound(ingress),
            proxy_protocol: options.proxy_protocol,
            upstream: options.upstream,
            workers: options.workers.max(1),
            health: options.health,
            internal_api: options.internal_api,
            agent: Arc::new(agent),
            objects: None,
            nsm: module,
            clock,
            certificate: certificate.map(|(chain, key)| GivenCertificate { chain, key }),
            control: None,
            start_traffic: traffic,
        })?;
        handle.wait_until_accepting(options.start_timeout)?;
        Ok(Self {
            handle,
            platform,
            address,
            ca_pem,
            nsm_root_pem: root.certificate_pem(),
            nsm_root_der: root.certificate_der().to_vec(),
            api_keys,
            app_public_key,
        })
    }

    /// Where clients connect: the real port where 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Where the internal API listens, when it was asked for.
    pub fn internal_api(&self) -> Option<Address> {
        self.handle.internal_api()
    }

    /// Where health is asked, when it was asked for.
    pub fn health_address(&self) -> Option<Address> {
        self.handle.health_address()
    }

    /// Certificate of the development CA, PEM; none when a certificate was given, or TLS does not end
    /// here.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Root of the simulated NSM, PEM.
    pub fn nsm_root_pem(&self) -> &str {
        &self.nsm_root_pem
    }

    /// Root of the simulated NSM, DER: for `TrustAnchor::dangerous_root`.
    pub fn nsm_root_der(&self) -> &[u8] {
        &self.nsm_root_der
    }

    /// The API keys: those given, or the one that was made.
    pub fn api_keys(&self) -> &[String] {
        &self.api_keys
    }

    /// The newest app key, compressed (SEC 1): what clients encrypt to.
    pub fn app_public_key(&self) -> &[u8; 33] {
        &self.app_public_key
    }

    /// The whole state.
    pub fn health(&self) -> Health {
        self.handle.health()
    }

    /// Counters of the traffic.
    pub fn stats(&self) -> TrafficStats {
        self.handle.stats()
    }

    /// Replaces the API keys; the data plane follows within a moment.
    ///
    /// # Errors
    ///
    /// [`DevError::ApiKey`].
    pub fn replace_api_keys(&self, keys: &[DevApiKey]) -> Result<(), DevError> {
        let (_, records) = options::api_keys(keys)?;
        self.platform.replace_api_keys(records);
        Ok(())
    }

    /// Plays a host that carries no bundles any more, or carries them again.
    pub fn hold_back_bundles(&self, is_held_back: bool) {
        self.platform.hold_back(is_held_back);
    }

    /// Stops accepting, waits at most `grace` for what is in flight, and ends.
    ///
    /// # Errors
    ///
    /// Why it had ended before.
    pub fn drain(&self, grace: Duration) -> Result<(), DevError> {
        Ok(self.handle.drain(grace)?)
    }

    /// Ends at once.
    ///
    /// # Errors
    ///
    /// As [`Self::drain`].
    pub fn stop(&self) -> Result<(), DevError> {
        Ok(self.handle.stop()?)
    }
}

/// A module with zero PCRs, under the root of a folder or under one that is kept nowhere.
fn debug_nsm(
    root_dir: Option<&Path>,
    clock: &Arc<dyn Clock>,
    now: UnixMillis,
) -> Result<DevNsm, DevError> {
    let root = match root_dir {
        Some(dir) => DevelopmentRoot::load_or_create(dir, now)?,
        None => DevelopmentRoot::generate(now)?,
    };
    let simulator = Simulator::new(&root, [], MODULE_ID, now)?;
    let time = Arc::clone(clock);
    let module = Arc::new(Steered::new(simulator, move || UnixMillis(time.now_ms())));
    Ok(DevNsm { module, root })
}

/// The configuration with our service key in place of the measured ones: nothing is measured here,
/// and bundles of the real platform are not for this.
fn config(json: &[u8], platform: &Platform) -> Result<EnclaveConfig, DevError> {
    let mut value: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| DevError::Config(error.into()))?;
    if let Some(object) = value.as_object_mut() {
        let trust = serde_json::json!({ "service_keys": [platform.service_key()] });
        object.insert("trust".to_owned(), trust);
    }
    Ok(EnclaveConfig::from_json(value.to_string().as_bytes())?)
}

impl fmt::Debug for DevPlane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DevPlane")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Module id in the documents of the simulated NSM.
const MODULE_ID: &str = "i-cloister-dev";

#[cfg(test)]
mod tests;
