//! What the enclave says about itself on its health port: `GET /health`, `GET /metrics`, and
//! `POST /v1/drain` (wire.md §2).
//!
//! [`Board`] gathers what the parts report; [`process`] asks the user process, unless HEALTHCHECK of
//! the image decides: then init runs it and says what it found. "Unknown" is never healthy. The host
//! reads this and is not believed with anything: nothing secret is on the board.

mod metrics;
pub mod process;
pub mod services;
mod system;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use cloister_wire::health::{Health, State};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tokio::sync::{Notify, watch};

use crate::certificate::Certificates;
use crate::clock::Clock;
use crate::health::services::Services;
use crate::live::{Live, Serving};
use crate::log_ring::LogSinks;
use crate::objects::ObjectStats;
use crate::provision::{ProvisionStats, ProvisionWatch};
use crate::server::traffic::Slot;
use crate::small_http::{Answer, Service, answer, json, not_allowed, refusal};

/// How far the start has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is there yet.
    Starting,
    /// Waiting for the first bundle, the certificate or the user process; says which.
    Waiting(&'static str),
    /// Traffic is accepted.
    Accepting,
    /// What is in flight is finished.
    Draining,
    /// It will never serve.
    Failed(String),
}

/// What every part reports, in one place.
pub struct Board {
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// None where TLS does not end here.
    pub(crate) certificates: Option<Arc<Certificates>>,
    pub(crate) logs: LogSinks,
    pub(crate) provision: ProvisionWatch,
    pub(crate) provision_stats: Arc<ProvisionStats>,
    pub(crate) object_stats: Arc<ObjectStats>,
    pub(crate) phase: watch::Sender<Phase>,
    /// `None`: not known yet.
    pub(crate) process_healthy: watch::Sender<Option<bool>>,
    /// Why it is not, in init's words.
    pub(crate) process_problem: ArcSwapOption<String>,
    pub(crate) process_restarts: AtomicU64,
    pub(crate) process_started: Notify,
    pub(crate) drain: Notify,
    pub(crate) traffic: Slot,
    pub(crate) services: Services,
}

impl Board {
    /// The whole state, as `GET /health` gives it.
    pub fn health(&self) -> Health {
        let live = self.live.load();
        let logs = self.logs.stats();
        let process_healthy = *self.process_healthy.borrow();
        let (state, reason) = self.state(&live);
        Health {
            state,
            reason: self.reason(state, reason, process_healthy),
            process_healthy,
            process_restarts: self.process_restarts.load(Ordering::Relaxed),
            bundle_version: Some(live.bundle_version).filter(|version| *version > 0),
            certificate_not_after: self
                .certificates
                .as_ref()
                .map(|all| all.current().not_after),
            clock_offset_ms: self.clock.offset_ms(),
            services: self.services.all(),
            log_ring_records: logs.records,
            log_ring_dropped: logs.dropped,
            log_ring_bytes: logs.bytes,
            log_ring_limit: logs.limit,
        }
    }

    /// Why it does not serve in full: what is known of the process says more than the phase does.
    fn reason(
        &self,
        state: State,
        of_phase: Option<String>,
        is_healthy: Option<bool>,
    ) -> Option<String> {
        let by_default = match (state, is_healthy) {
            (State::Starting | State::Draining | State::Failed, _) | (_, Some(true)) => {
                return of_phase;
            }
            (State::Provisioning, _) => None,
            (State::Ready, None) => Some("the user process was not healthy yet"),
            (State::Ready, Some(false)) => Some("the user process is not healthy"),
        };
        let said = self.process_problem.load().as_deref().cloned();
        said.or(of_phase).or_else(|| by_default.map(str::to_owned))
    }

    fn state(&self, live: &Live) -> (State, Option<String>) {
        let phase = self.phase.borrow().clone();
        if let (Phase::Accepting, Some(service)) = (&phase, self.services.failed()) {
            return (State::Failed, Some(format!("{service} has failed")));
        }
        match phase {
            Phase::Starting => (State::Starting, None),
            Phase::Waiting(what) => {
                let problem = self.provision.problem.borrow().clone();
                (
                    State::Provisioning,
                    problem.or_else(|| Some(what.to_owned())),
                )
            }
            Phase::Accepting => match live.serving_at(self.clock.now_ms()) {
                Serving::Ready => (State::Ready, None),
                Serving::Draining => (State::Draining, None),
                Serving::NotReady { reason } => (State::Provisioning, Some(reason.to_owned())),
            },
            Phase::Draining => (State::Draining, None),
            Phase::Failed(reason) => (State::Failed, Some(reason)),
        }
    }
}

impl Service for Board {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match (request.uri().path(), request.method()) {
            ("/health", &Method::GET | &Method::HEAD) => {
                let health = self.health();
                let is_well = health.state == State::Ready && health.process_healthy == Some(true);
                let status = if is_well {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                json(status, &health)
            }
            ("/metrics", &Method::GET | &Method::HEAD) => answer(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                metrics::text(self).into_bytes(),
            ),
            ("/v1/drain", &Method::POST) => {
                self.drain.notify_one();
                json(
                    StatusCode::ACCEPTED,
                    &serde_json::json!({ "state": "draining" }),
                )
            }
            ("/health" | "/metrics", _) => not_allowed("GET, HEAD"),
            ("/v1/drain", _) => not_allowed("POST"),
            _ => refusal(
                StatusCode::NOT_FOUND,
                "no such call: expected /health, /metrics or /v1/drain",
            ),
        }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.health().fmt(formatter)
    }
}
