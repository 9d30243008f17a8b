//! One thread of the relay: its runtime, its connections, and on the first one the acceptor.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use cloister_transport::{Bound, Listener, Scratch};
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

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
        // A local runtime stays on the thread that makes it. A `LocalSet` would do, and cost a system
        // call and a turn of the reactor for many of the events.
        let (started, is_started) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("relay-{}", self.index))
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        // Whoever starts workers is there until it has heard of all.
                        drop(started.send(Ok(())));
                        // In a task of its own: to wake the future that a runtime blocks on costs a
                        // write to its reactor, and a new connection does.
                        let work = runtime.spawn_local(self.run());
                        // A panic has said so already.
                        drop(runtime.block_on(work));
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
                // Nobody waits when the relay was dropped.
                let _ = end.send(());
            })?;
        match is_started.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(error)) => Err(error),
            Err(_ended) => Err(io::Error::other("a worker ended before it began")),
        }
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
        let beat = tokio::task::spawn_local(beat());
        let mut more = true;
        while more || !tasks.is_empty() {
            tokio::select! {
                biased;
                _ = self.phase.wait_for(|phase| *phase == Phase::Stopped) => break,
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
        beat.abort();
    }
}

/// Keeps a timer near. One that is earlier than all others costs a write to the reactor, and the
/// limit of each connect would be that.
async fn beat() {
    loop {
        sleep(BEAT).await;
    }
}

/// Below the limits of connecting.
const BEAT: Duration = Duration::from_secs(1);

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
