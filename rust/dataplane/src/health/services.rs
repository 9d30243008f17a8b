//! Services without which nothing is served: which run, and which has failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// What is known of them, shared by whoever runs one and whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Services(Arc<watch::Sender<BTreeMap<&'static str, bool>>>);

impl Services {
    /// A service runs.
    pub fn run(&self, name: &'static str) {
        self.0.send_modify(|services| {
            services.insert(name, true);
        });
    }

    /// A service has ended that should not have. It is not started again: the data plane is.
    pub fn fail(&self, name: &'static str) {
        self.0.send_modify(|services| {
            services.insert(name, false);
        });
    }

    /// Each by its name, and whether it runs.
    pub fn all(&self) -> BTreeMap<String, bool> {
        let services = self.0.borrow();
        let named = services
            .iter()
            .map(|(name, is_up)| ((*name).to_owned(), *is_up));
        named.collect()
    }

    /// The first that has failed.
    pub fn failed(&self) -> Option<&'static str> {
        let services = self.0.borrow();
        let down = services.iter().find(|(_, is_up)| !**is_up);
        down.map(|(name, _)| *name)
    }

    /// Waits until one fails.
    pub async fn failure(&self) -> &'static str {
        let mut services = self.0.subscribe();
        loop {
            if let Some(failed) = self.failed() {
                return failed;
            }
            if services.changed().await.is_err() {
                // This holds a sender, so there is always one.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_known_and_wakes_who_waits() {
        let services = Services::default();
        services.run("ingress");
        services.run("internal_api");
        let limit = Duration::from_secs(1);
        let waited = tokio::time::timeout(limit, services.failure()).await;
        assert!(waited.is_err() && services.failed().is_none());
        let (other, waits) = (services.clone(), services.clone());
        let waiting = tokio::spawn(async move { waits.failure().await });
        other.fail("ingress");
        assert_eq!(waiting.await.unwrap(), "ingress");
        assert!(services.all()["internal_api"]);
        assert!(!services.all()["ingress"]);
    }
}
