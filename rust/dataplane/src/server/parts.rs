//! What is made before anything runs: keys, certificate, shared state, and who works on them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_attestation::hex;
use cloister_wire::config::EnclaveConfig;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::traffic::Slot;
use super::{DataPlaneOptions, ServerError};
use crate::certificate::Certificates;
use crate::certificate::key::TlsKey;
use crate::certificate::orders::{Orders, names};
use crate::certificate::shared::SharedOrders;
use crate::documents::Documents;
use crate::health::services::Services;
use crate::health::{Board, Phase};
use crate::held::HeldBytes;
use crate::internal_api::{InternalApi, Openings};
use crate::live::{Identity, Live};
use crate::log_ring::{self, LogSinks};
use crate::log_shipper::LogShipper;
use crate::nsm_thread::NsmThread;
use crate::objects::{self, ObjectStats};
use crate::provision::{ProvisionOptions, ProvisionStats, ProvisionWatch, Provisioner};

/// Everything that is shared, and every task that has not begun.
pub(super) struct Parts {
    pub(super) live: Arc<ArcSwap<Live>>,
    pub(super) certificates: Option<Arc<Certificates>>,
    pub(super) documents: Arc<Documents>,
    pub(super) logs: LogSinks,
    pub(super) board: Arc<Board>,
    pub(super) internal_api: Arc<InternalApi>,
    pub(super) held: HeldBytes,
    pub(super) provisioner: Provisioner,
    pub(super) provision: ProvisionWatch,
    pub(super) orders: Option<(Supply, watch::Receiver<bool>)>,
    pub(super) shipper: LogShipper,
}

/// Who sees to the certificate.
pub(super) enum Supply {
    /// This enclave for itself.
    Alone(Box<Orders>),
    /// All enclaves of the image together.
    Shared(Box<SharedOrders>),
}

impl Supply {
    pub(super) async fn run(self) {
        match self {
            Self::Alone(orders) => orders.run().await,
            Self::Shared(orders) => orders.run().await,
        }
    }
}

impl Parts {
    pub(super) fn make(options: &DataPlaneOptions) -> Result<Self, ServerError> {
        let config = &options.config;
        let clock = Arc::clone(&options.clock);
        let nsm = NsmThread::start(Arc::clone(&options.nsm))?;
        let (certificates, key) = certificates(options)?;
        let identity = Identity {
            team: config.team_uuid.to_string(),
            app: config.app_uuid.to_string(),
            name: config.name.clone(),
        };
        let waiting = Live::not_ready(WAITING, identity.clone(), 0);
        let live = Arc::new(ArcSwap::from_pointee(waiting));
        let stats = Arc::new(ProvisionStats::default());
        let object_stats = Arc::new(ObjectStats::default());
        let (provisioner, provision) = Provisioner::new(ProvisionOptions {
            agent: Arc::clone(&options.agent),
            nsm: nsm.clone(),
            clock: Arc::clone(&clock),
            enclave: config.uuid,
            service_keys: service_keys(config)?,
            identity,
            live: Arc::clone(&live),
            stats: Arc::clone(&stats),
            sharing: objects::sharing(config.tls.dangerous_share_across_deployments),
        });
        let limit = usize::try_from(config.limits.log_ring).unwrap_or(usize::MAX);
        let (ring, logs) = log_ring::ring(limit, options.workers);
        let board = Arc::new(Board {
            live: Arc::clone(&live),
            clock: Arc::clone(&clock),
            certificates: certificates.clone(),
            logs: logs.clone(),
            provision: provision.clone(),
            provision_stats: stats,
            object_stats: Arc::clone(&object_stats),
            phase: watch::channel(Phase::Starting).0,
            process_healthy: watch::channel(None).0,
            process_problem: ArcSwapOption::empty(),
            process_restarts: AtomicU64::new(0),
            process_started: Notify::new(),
            drain: Notify::new(),
            traffic: Slot::default(),
            services: Services::default(),
        });
        let held = HeldBytes::new(config.limits.held_bytes);
        let internal_api = Arc::new(InternalApi {
            nsm: nsm.clone(),
            live: Arc::clone(&live),
            config: Arc::clone(config),
            clock: Arc::clone(&clock),
            board: Arc::clone(&board),
            started: Instant::now(),
            openings: Openings::start(Arc::clone(&live), config)?,
            sealings: Arc::new(Semaphore::new(1)),
            held: held.clone(),
        });
        let orders = certificates.clone().zip(key).map(|(certificates, key)| {
            let (orders, is_ordered) = Orders::new(
                Arc::clone(&options.agent),
                certificates,
                Arc::clone(&clock),
                config.tls.domains.clone(),
                names(&config.tls.domains, config.tls.acme),
                key,
            );
            let supply = match &options.objects {
                None => Supply::Alone(Box::new(orders)),
                Some(objects) => {
                    let (objects, grants) = (Arc::clone(objects), provision.objects.clone());
                    let shared = SharedOrders::new(orders, objects, grants, object_stats);
                    Supply::Shared(Box::new(shared))
                }
            };
            (supply, is_ordered)
        });
        if config.tls.dangerous_share_across_deployments {
            tracing::warn!(
                "`[tls] dangerous_share_across_deployments` is on: other images of this enclave, \
                 older ones too, can serve under this one's TLS key"
            );
        }
        Ok(Self {
            live,
            certificates,
            documents: Arc::new(Documents::new(nsm, clock)),
            logs,
            board,
            internal_api,
            held,
            provisioner,
            provision,
            orders,
            shipper: LogShipper::new(ring, boot_id()?),
        })
    }
}

/// The first certificate, and the key to order one for, unless one was given. Neither where TLS does
/// not end here.
fn certificates(
    options: &DataPlaneOptions,
) -> Result<(Option<Arc<Certificates>>, Option<TlsKey>), ServerError> {
    if !options.config.tls.termination {
        return Ok((None, None));
    }
    if let Some(given) = &options.certificate {
        let certificates = Certificates::given(&given.chain, &given.key)?;
        return Ok((Some(Arc::new(certificates)), None));
    }
    let tls = &options.config.tls;
    let key = TlsKey::generate()?;
    let names = names(&tls.domains, tls.acme);
    let certificates = Certificates::self_signed(&key, &names, options.clock.now_ms())?;
    Ok((Some(Arc::new(certificates)), Some(key)))
}

fn service_keys(config: &EnclaveConfig) -> Result<Vec<[u8; 32]>, ServerError> {
    let decode = |(position, text): (usize, &String)| {
        STANDARD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(ServerError::ServiceKey { position })
    };
    let keys = &config.trust.service_keys;
    keys.iter().enumerate().map(decode).collect()
}

/// 32 hexadecimal digits that no other start has.
fn boot_id() -> Result<Arc<str>, ServerError> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| ServerError::Random)?;
    Ok(hex(&bytes).into())
}

const WAITING: &str = "waiting for the first bundle";
