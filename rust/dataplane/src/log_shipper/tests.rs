//! Nothing is lost while it fits the ring, whatever the host does.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "numbers of a test are small"
)]

use std::sync::Mutex;

use cloister_wire::agent::{Event, OrderState};
use cloister_wire::logs::TransactionLog;
use tokio::sync::oneshot;

use super::*;
use crate::agent::{AgentError, AgentFuture};
use crate::log_ring::{Batch, LogSinks, ring};

/// A host that can be away, and can acknowledge less or more than it has.
#[derive(Default)]
struct Host {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_away: bool,
    acks_at_most: Option<u64>,
    acks_too_much: bool,
    calls: u64,
    kept: Vec<TransactionLog>,
}

impl AgentApi for Host {
    fn logs(&self, boot: Arc<str>, batch: Batch) -> AgentFuture<'_, u64> {
        Box::pin(async move {
            assert_eq!(&*boot, "b007");
            let mut state = self.state.lock().unwrap();
            state.calls += 1;
            if state.is_away {
                return Err(AgentError::Deadline { call: "logs" });
            }
            let newest = state.kept.last().map_or(0, |log| log.sequence);
            let limit = state.acks_at_most.unwrap_or(u64::MAX);
            for line in batch.ndjson.split_inclusive(|byte| *byte == b'\n') {
                let log: TransactionLog = serde_json::from_slice(line).unwrap();
                if log.sequence > newest && log.sequence <= limit {
                    state.kept.push(log);
                }
            }
            let acked = batch.last_sequence.min(limit);
            Ok(if state.acks_too_much { u64::MAX } else { acked })
        })
    }

    fn challenge(&self) -> AgentFuture<'_, [u8; 32]> {
        refused()
    }

    fn provision(&self, _document: Vec<u8>) -> AgentFuture<'_, Vec<u8>> {
        refused()
    }

    fn newer_bundle(&self, _after: u64) -> AgentFuture<'_, Option<Vec<u8>>> {
        refused()
    }

    fn order(&self, _csr: Vec<u8>, _domains: Vec<String>) -> AgentFuture<'_, String> {
        refused()
    }

    fn order_state(&self, _id: String) -> AgentFuture<'_, OrderState> {
        refused()
    }

    fn event(&self, _event: Event) -> AgentFuture<'_, ()> {
        refused()
    }
}

fn refused<'a, T: 'a>() -> AgentFuture<'a, T> {
    Box::pin(async {
        Err(AgentError::Refused {
            call: "unused",
            status: 404,
        })
    })
}

struct World {
    host: Arc<Host>,
    sinks: LogSinks,
    stop: oneshot::Sender<Duration>,
    task: tokio::task::JoinHandle<()>,
}

fn world() -> World {
    let (ring, sinks) = ring(1 << 20, 1);
    let host = Arc::new(Host::default());
    let shipper = LogShipper::new(ring, "b007".into());
    let (stop, stopped) = oneshot::channel();
    let agent = Arc::clone(&host);
    let task = tokio::spawn(async move {
        let stopped = async { stopped.await.unwrap() };
        shipper.run(&*agent, stopped).await;
    });
    World {
        host,
        sinks,
        stop,
        task,
    }
}

impl World {
    fn record(&self, count: u64) {
        let sink = self.sinks.sink();
        for ts in 0..count {
            sink.record(&crate::log_ring::tests::log("x", ts));
        }
    }

    fn sequences(&self) -> Vec<u64> {
        let state = self.host.state.lock().unwrap();
        state.kept.iter().map(|log| log.sequence).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_is_with_the_host_after_a_second() {
    let world = world();
    world.record(3);
    sleep(PERIOD + Duration::from_millis(50)).await;
    assert_eq!(world.sequences(), [1, 2, 3]);
    assert_eq!(world.sinks.stats().records, 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_comes_back_gets_everything_once_and_in_order() {
    let world = world();
    world.host.state.lock().unwrap().is_away = true;
    for _ in 0..60 {
        world.record(1);
        sleep(PERIOD).await;
    }
    assert_eq!(world.sequences(), [0; 0]);
    // It is asked again and again, and less and less often.
    let calls = world.host.state.lock().unwrap().calls;
    assert!((5..30).contains(&calls), "{calls}");

    world.host.state.lock().unwrap().is_away = false;
    sleep(LONGEST_RETRY + PERIOD).await;
    assert_eq!(world.sequences(), (1..=60).collect::<Vec<_>>());
    assert_eq!(world.sinks.stats().dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_acknowledged_is_sent_again() {
    let world = world();
    world.host.state.lock().unwrap().acks_at_most = Some(2);
    world.record(5);
    sleep(PERIOD * 3).await;
    assert_eq!(world.sequences(), [1, 2]);
    assert_eq!(world.sinks.stats().records, 3);
    world.host.state.lock().unwrap().acks_at_most = None;
    sleep(LONGEST_RETRY + PERIOD).await;
    assert_eq!(world.sequences(), [1, 2, 3, 4, 5]);
}

/// A host that acknowledges what it never got cannot make records vanish that were not sent.
#[tokio::test(start_paused = true)]
async fn an_acknowledgment_reaches_no_further_than_what_was_sent() {
    let world = world();
    world.host.state.lock().unwrap().acks_too_much = true;
    world.record(2);
    sleep(PERIOD * 2).await;
    world.record(2);
    sleep(PERIOD * 2).await;
    assert_eq!(world.sequences(), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn the_last_records_are_sent_before_the_end() {
    let world = world();
    world.record(4);
    tokio::task::yield_now().await;
    world.stop.send(Duration::from_secs(5)).unwrap();
    world.task.await.unwrap();
    let state = world.host.state.lock().unwrap();
    assert_eq!(state.kept.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_a_host_that_is_away() {
    let world = world();
    world.host.state.lock().unwrap().is_away = true;
    world.record(4);
    let asked = Instant::now();
    world.stop.send(Duration::from_secs(5)).unwrap();
    world.task.await.unwrap();
    assert!(asked.elapsed() <= Duration::from_secs(6));
}
