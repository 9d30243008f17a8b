//! Sends transaction logs to the host, batch by batch, and forgets a record only when the host says
//! that it is on its disk (data-plane.md §4, wire.md §2).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::agent::AgentApi;
use crate::backoff::Backoff;
use crate::log_ring::LogRing;

/// Collects from the sinks and sends until it is dropped.
#[derive(Debug)]
pub struct LogShipper {
    ring: LogRing,
    boot: Arc<str>,
}

impl LogShipper {
    /// Ships `ring` under the id of this start, 32 hexadecimal digits.
    pub fn new(ring: LogRing, boot: Arc<str>) -> Self {
        Self { ring, boot }
    }

    /// Ships until `stop` is done, then sends what is left for at most `grace`.
    ///
    /// While the host is away the ring goes on collecting, so that a worker's own room is not what
    /// bounds an outage.
    pub async fn run(mut self, agent: &dyn AgentApi, stop: impl Future<Output = Duration>) {
        let grace = {
            let mut stop = std::pin::pin!(stop);
            let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
            let mut not_before = Instant::now();
            loop {
                let period = sleep(PERIOD);
                tokio::select! {
                    biased;
                    grace = &mut stop => break grace,
                    () = period => {}
                    () = self.ring.woken() => {}
                }
                self.ring.collect();
                if Instant::now() < not_before {
                    continue;
                }
                // Dropping a call that is under way loses nothing: the host drops duplicates.
                let sent = tokio::select! {
                    biased;
                    grace = &mut stop => break grace,
                    sent = send_all(&mut self.ring, &self.boot, agent) => sent,
                };
                if sent.is_ok() {
                    backoff.reset();
                } else {
                    let wait = backoff.wait();
                    not_before = Instant::now().checked_add(wait).unwrap_or(not_before);
                }
            }
        };
        self.ring.collect();
        if timeout(grace, self.flush(agent)).await.is_err() {
            tracing::warn!(ring = ?self.ring, "logs are lost: the host did not take them in time");
        }
    }

    async fn flush(&mut self, agent: &dyn AgentApi) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        while send_all(&mut self.ring, &self.boot, agent).await.is_err() {
            let wait = Instant::now().checked_add(backoff.wait());
            sleep_until(wait.unwrap_or_else(Instant::now)).await;
        }
    }
}

/// Sends batches until the ring holds none; a batch that was not acknowledged stays.
async fn send_all(ring: &mut LogRing, boot: &Arc<str>, agent: &dyn AgentApi) -> Result<(), ()> {
    while let Some(batch) = ring.batch() {
        let last_sequence = batch.last_sequence;
        match agent.logs(Arc::clone(boot), batch).await {
            // The host cannot acknowledge what it was not sent.
            Ok(acked) => {
                let acked = acked.min(last_sequence);
                if ring.acknowledge(acked) == 0 {
                    tracing::warn!("the host acknowledged no log");
                    return Err(());
                }
            }
            Err(error) => {
                tracing::warn!(%error, "logs are not with the host yet");
                return Err(());
            }
        }
    }
    Ok(())
}

/// Longest time a record waits for a batch to fill (data-plane.md §4).
pub const PERIOD: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
