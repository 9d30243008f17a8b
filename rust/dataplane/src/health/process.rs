//! Whether the user process is healthy: asked every second, decided by thresholds
//! (data-plane.md §6).

use std::time::Duration;

use bytes::Bytes;
use cloister_transport::{Address, Stream, connect};
use cloister_wire::config::EnclaveConfig;
use cloister_wire::proxy_v2::{self, Header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether something accepts there.
    Accepts(Address),
    /// Whether a GET of the path answers 2xx.
    Get {
        /// Where.
        address: Address,
        /// Path, as it is sent.
        path: String,
    },
    /// Whether something accepts there that wants a PROXY header: it is told that this is a probe.
    Greets(Address),
}

/// Turns single probes into a verdict that does not flutter.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    is_healthy: Option<bool>,
    failures: u32,
}

impl Probe {
    /// What the configuration asks of a process that listens at `service`.
    pub fn of(config: &EnclaveConfig, service: &Address) -> Self {
        let Some(check) = &config.healthcheck else {
            return if config.forward_proxy_protocol {
                Self::Greets(service.clone())
            } else {
                Self::Accepts(service.clone())
            };
        };
        let address = check.port.map(|port| Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        });
        Self::Get {
            address: address.unwrap_or_else(|| service.clone()),
            path: check.path.clone(),
        }
    }

    /// Asks once, for at most [`DEADLINE`].
    pub async fn ask(&self) -> bool {
        timeout(DEADLINE, async {
            match self {
                Self::Accepts(address) => connect(address, DEADLINE).await.is_ok(),
                Self::Greets(address) => match connect(address, DEADLINE).await {
                    Ok(stream) => greet(stream).await.is_ok(),
                    Err(_) => false,
                },
                Self::Get { address, path } => match connect(address, DEADLINE).await {
                    Ok(stream) => get(stream, path).await.unwrap_or(false),
                    Err(_) => false,
                },
            }
        })
        .await
        .unwrap_or(false)
    }
}

impl Verdict {
    /// Nothing is known.
    pub fn unknown() -> Self {
        Self {
            is_healthy: None,
            failures: 0,
        }
    }

    /// Takes the outcome of one probe and gives the verdict: healthy after one success, unhealthy
    /// after [`DOWN`] failures in a row.
    pub fn observe(&mut self, is_well: bool) -> Option<bool> {
        if is_well {
            *self = Self {
                is_healthy: Some(true),
                failures: 0,
            };
        } else {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= DOWN {
                self.is_healthy = Some(false);
            }
        }
        self.is_healthy
    }
}

/// Probes every second until it is dropped, and more often for a while after `started`, so that a
/// process that is up is not kept waiting. A failure of that while counts for nothing.
pub async fn watch_process(probe: &Probe, verdict: &watch::Sender<Option<bool>>, started: &Notify) {
    let mut state = Verdict::unknown();
    let mut pause = Duration::ZERO;
    let mut starting_until = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = started.notified() => {
                starting_until = Instant::now().checked_add(START).unwrap_or(starting_until);
            }
            () = sleep(pause) => {}
        }
        let is_well = probe.ask().await;
        let is_starting = !is_well && Instant::now() < starting_until;
        pause = if is_starting { SHORT_PERIOD } else { PERIOD };
        if is_starting {
            continue;
        }
        let next = state.observe(is_well);
        verdict.send_if_modified(|known| {
            let is_news = *known != next;
            *known = next;
            is_news
        });
    }
}

/// Says what a load balancer's check says (proxy-protocol.txt §2.2, LOCAL), and ends.
async fn greet(mut stream: Stream) -> std::io::Result<()> {
    let mut header = Vec::new();
    proxy_v2::encode(&Header::Local, &mut header);
    stream.write_all(&header).await
}

async fn get(stream: Stream, path: &str) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(HOST, "localhost")
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => response?,
        _ = connection => answer.await?,
    };
    Ok(response.status().is_success())
}

/// What a probe calls itself, as processes that watch for it expect.
pub const AGENT: &str = "Evervault-Healthcheck-Agent";
/// Time between probes.
pub const PERIOD: Duration = Duration::from_secs(1);
/// How long after its start a process is probed more often.
const START: Duration = Duration::from_secs(10);
/// Time between probes then.
const SHORT_PERIOD: Duration = Duration::from_millis(20);
/// Longest wait for one probe.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// Failures in a row that make a process unhealthy.
pub const DOWN: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_wire::config::Healthcheck;

    const CONFIG: &str = include_str!("../../../../tests/vectors/config/enclave.json");

    /// One lost probe must not take an enclave out of service, and one good one must bring it back.
    #[test]
    fn one_success_is_up_and_three_failures_are_down() {
        let mut verdict = Verdict::unknown();
        assert_eq!(verdict.observe(false), None);
        assert_eq!(verdict.observe(true), Some(true));
        assert_eq!(verdict.observe(false), Some(true));
        assert_eq!(verdict.observe(false), Some(true));
        assert_eq!(verdict.observe(false), Some(false));
        assert_eq!(verdict.observe(true), Some(true));
    }

    #[test]
    fn a_process_that_never_answered_becomes_unhealthy() {
        let mut verdict = Verdict::unknown();
        let verdicts = [false; 3].map(|is_well| verdict.observe(is_well));
        assert_eq!(verdicts, [None, None, Some(false)]);
    }

    #[test]
    fn a_health_port_of_its_own_is_asked() {
        let service = Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 8008,
        };
        let mut config = EnclaveConfig::from_json(CONFIG.as_bytes()).unwrap();
        let mut probe = |check| {
            config.healthcheck = check;
            Probe::of(&config, &service)
        };
        let check = |port| {
            let path = "/up".to_owned();
            Some(Healthcheck { path, port })
        };
        assert_eq!(probe(None), Probe::Accepts(service.clone()));
        let Probe::Get { address, .. } = probe(check(None)) else {
            panic!("a path is asked with GET");
        };
        assert_eq!(address, service);
        let Probe::Get { address, .. } = probe(check(Some(9000))) else {
            panic!("a path is asked with GET");
        };
        assert_eq!(address.to_string(), "tcp:127.0.0.1:9000");
    }
}
