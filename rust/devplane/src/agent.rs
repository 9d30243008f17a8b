//! The agent API in this process: the same calls, answered without a wire.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cloister_attestation::UnixMillis;
use cloister_dataplane::agent::{AgentApi, AgentError, AgentFuture};
use cloister_dataplane::clock::Clock;
use cloister_dataplane::log_ring::Batch;
use cloister_wire::agent::{Event, OrderState};

use crate::authority::Authority;
use crate::logs::LogWriter;
use crate::platform::{Platform, Refused};

/// Host, platform and certificate authority at once.
pub(crate) struct MemoryAgent {
    platform: Arc<Platform>,
    authority: Option<Authority>,
    logs: LogWriter,
    clock: Arc<dyn Clock>,
    orders: Mutex<HashMap<String, String>>,
    next_order: AtomicU64,
}

impl MemoryAgent {
    pub(crate) fn new(
        platform: Arc<Platform>,
        authority: Option<Authority>,
        logs: LogWriter,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            platform,
            authority,
            logs,
            clock,
            orders: Mutex::default(),
            next_order: AtomicU64::new(1),
        }
    }

    fn take_order(&self, csr: &[u8]) -> Result<String, AgentError> {
        let call = "order";
        let now = UnixMillis(self.clock.now_ms());
        let authority = self.authority.as_ref();
        let authority = authority.ok_or(AgentError::Refused { call, status: 404 })?;
        let chain = authority.sign(csr, now).map_err(|error| {
            tracing::warn!(%error, "the development CA refused a request");
            AgentError::Refused { call, status: 400 }
        })?;
        let id = self.next_order.fetch_add(1, Ordering::Relaxed).to_string();
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.insert(id.clone(), chain);
        Ok(id)
    }
}

impl AgentApi for MemoryAgent {
    fn challenge(&self) -> AgentFuture<'_, [u8; 32]> {
        Box::pin(async { self.platform.challenge().map_err(refused("challenge")) })
    }

    fn provision(&self, document: Vec<u8>) -> AgentFuture<'_, Vec<u8>> {
        Box::pin(async move {
            let sealed = self.platform.provision(&document);
            sealed.map_err(refused("provision"))
        })
    }

    fn newer_bundle(&self, after: u64) -> AgentFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            let sealed = self.platform.newer_bundle(after).await;
            sealed.map_err(refused("bundle"))
        })
    }

    fn order(&self, csr: Vec<u8>, _domains: Vec<String>) -> AgentFuture<'_, String> {
        Box::pin(async move { self.take_order(&csr) })
    }

    fn order_state(&self, id: String) -> AgentFuture<'_, OrderState> {
        Box::pin(async move {
            let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            match orders.remove(&id) {
                Some(certificate_chain) => Ok(OrderState::Valid { certificate_chain }),
                None => Err(AgentError::Refused {
                    call: "order state",
                    status: 404,
                }),
            }
        })
    }

    fn logs(&self, _boot: Arc<str>, batch: Batch) -> AgentFuture<'_, u64> {
        Box::pin(async move {
            let written = self.logs.write(&batch.ndjson);
            written.map_err(|error: io::Error| AgentError::Io {
                call: "logs",
                source: error.into(),
            })?;
            Ok(batch.last_sequence)
        })
    }

    fn event(&self, event: Event) -> AgentFuture<'_, ()> {
        Box::pin(async move {
            tracing::info!(kind = event.kind, message = event.message, "event");
            Ok(())
        })
    }
}

fn refused(call: &'static str) -> impl Fn(Refused) -> AgentError {
    move |error| {
        tracing::warn!(%error, call, "the development platform refused");
        AgentError::Refused { call, status: 403 }
    }
}
