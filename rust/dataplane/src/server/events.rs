//! Tells the host what happens: states, ends of the user process (`POST /v1/events`, wire.md §2).
//!
//! The host shows them to people and decides nothing by them. One that cannot be delivered is
//! dropped: nothing waits for the host to listen.

use std::sync::Arc;

use cloister_wire::agent::Event;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;

use crate::agent::AgentApi;
use crate::health::Phase;

/// Where events are left. Never blocks.
#[derive(Clone, Debug)]
pub(super) struct Events(Sender<Event>);

impl Events {
    /// A place for events, and what delivers them.
    pub(super) fn new() -> (Self, Receiver<Event>) {
        let (events, waiting) = channel(MAX_WAITING);
        (Self(events), waiting)
    }

    /// Leaves an event; when too many wait it is dropped.
    pub(super) fn report(&self, kind: &str, message: String) {
        let event = Event {
            kind: kind.to_owned(),
            message,
        };
        // Full or closed: nobody listens.
        drop(self.0.try_send(event));
    }
}

/// Delivers events one after the other, until nobody leaves any.
pub(super) async fn deliver(mut waiting: Receiver<Event>, agent: Arc<dyn AgentApi>) {
    while let Some(event) = waiting.recv().await {
        if let Err(error) = agent.event(event).await {
            tracing::debug!(%error, "an event was not delivered");
        }
    }
}

/// Reports each state that the start and the end come to.
pub(super) async fn report_states(mut phase: watch::Receiver<Phase>, events: Events) {
    loop {
        let message = match &*phase.borrow_and_update() {
            Phase::Starting => "starting".to_owned(),
            Phase::Waiting(what) => (*what).to_owned(),
            Phase::Accepting => "accepting traffic".to_owned(),
            Phase::Draining => "draining".to_owned(),
            Phase::Failed(reason) => format!("failed: {reason}"),
        };
        events.report("state", message);
        if phase.changed().await.is_err() {
            return;
        }
    }
}

/// Events that wait for a host that is slow.
const MAX_WAITING: usize = 32;
