//! One thread of the relay: its runtime, its connections, and on the first one the acceptor.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use cloister_transport::{Bound, Listener, Scratch};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use super::{Job, Phase, Shared, connection};

/// Everything a worker needs. The queues are bounded by `max_connections`: a job holds a place.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) jobs: UnboundedReceiver<Job>,
    /// The listening socket and everybody's queue: the first worker accepts.
    pub(super) door: Option<(Bound, Vec<UnboundedSender<Job>>)>,
}

impl Worker {
    /// Starts the thread. It says on `end` when it is over.
    pub(super) fn spawn(self, end: mpsc::Sender<()>) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name(format!("relay-{}", self.index))
            .spawn(move || {
                LocalSet::new().block_on(&runtime, self.run());
                // Nobody waits when the relay was dropped.
                let _ = end.send(());
            })
    }

    async fn run(mut self) {
        let scratch = Scratch::new();
        let mut tasks = JoinSet::new();
        if let Some((bound, queues)) = self.door.take() {
            let shared = Arc::clone(&self.shared);
            let phase = self.phase.clone();
            match bound.attach() {
                Ok(listener) => {
                    tasks.spawn_local(accept(listener, queues, shared, phase));
                }
                Err(error) => tracing::error!(%error, "cannot listen"),
            }
        }
        let mut more = true;
        while more || !tasks.is_empty() {
            tokio::select! {
                biased;
                _ = self.phase.wait_for(|phase| *phase == Phase::Stopped) => return,
                job = self.jobs.recv(), if more => match job {
                    Some(job) => {
                        tasks.spawn_local(connection::serve(job, scratch.clone()));
                    }
                    // The acceptor is gone: draining.
                    None => more = false,
                },
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

/// Accepts until told to drain, then closes the listener and everybody's queue.
async fn accept(
    listener: Listener,
    queues: Vec<UnboundedSender<Job>>,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
            accepted = listener.accept_detached() => accepted,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "the listener is broken");
                return;
            }
        };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        let Some(place) = shared.place() else {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        if let Some(queue) = queues.get(place.worker) {
            // A worker that is gone drops the job, and with it the connection.
            drop(queue.send(Job { accepted, place }));
        }
    }
}
