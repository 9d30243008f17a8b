//! The life of a data plane: start in the order of data-plane.md §6, serve, drain, end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use cloister_transport::{Address, Bound};
use cloister_wire::config::{EnclaveConfig, Reload};
use cloister_wire::control::{FromInit, ToInit};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::events::{self, Events};
use super::parts::Parts;
use super::traffic::TrafficParts;
use super::{DataPlaneOptions, Ingress, ServerError, Shared};
use crate::agent::AgentApi;
use crate::control::{self, FromInitReader, ToInitWriter};
use crate::health::process::{Probe, watch_process};
use crate::health::services::Services;
use crate::health::{Board, Phase};
use crate::provision::Variables;
use crate::small_http::{self, Service};

/// Runs until a drain is over. `started` hears of it when every service listens.
pub(super) async fn run(
    mut options: DataPlaneOptions,
    shared: Arc<Shared>,
    started: SyncSender<Arc<Board>>,
) -> Result<(), ServerError> {
    let parts = Parts::make(&options)?;
    let board = Arc::clone(&parts.board);
    // A socket that listens from the start tells a caller at once that its port is taken.
    let ingress = match options.ingress {
        Ingress::Bound(bound) => {
            shared.address.send_replace(Some(bound.local_address()));
            Ok(bound)
        }
        Ingress::Late(address) => Err(address),
    };

    let mut tasks = JoinSet::new();
    let health = options.health.take();
    let watched = |name| Watched {
        name,
        services: &board.services,
    };
    listen(
        &mut tasks,
        health,
        &board,
        &shared.health,
        watched("health"),
    )?;
    let internal = options.internal_api.take();
    listen(
        &mut tasks,
        internal,
        &parts.internal_api,
        &shared.internal_api,
        watched("internal_api"),
    )?;
    let (events, waiting) = Events::new();
    tasks.spawn(events::deliver(waiting, Arc::clone(&options.agent)));
    tasks.spawn(events::report_states(
        board.phase.subscribe(),
        events.clone(),
    ));
    let mut is_health_told = false;
    let (to_init, drain_asked) = match options.control.take() {
        Some(channel) => {
            is_health_told = channel.tells_health;
            let (from_init, to_init) =
                control::open(channel.stream).map_err(ServerError::Control)?;
            let (drain, drain_asked) = watch::channel(false);
            tasks.spawn(hear(from_init, Arc::clone(&board), drain, events));
            (Some(to_init), drain_asked)
        }
        None => (None, watch::channel(false).1),
    };
    let (end_shipping, shipping_ends) = oneshot::channel();
    let shipping = tokio::spawn(ship(
        parts.shipper,
        Arc::clone(&options.agent),
        shipping_ends,
    ));
    tasks.spawn(parts.provisioner.run());
    let certificate = parts.orders.map(|(orders, is_ordered)| {
        tasks.spawn(orders.run());
        is_ordered
    });
    if !is_health_told {
        let probe = Probe::of(&options.config, &options.upstream);
        let watched = Arc::clone(&board);
        tasks.spawn(async move {
            watch_process(&probe, &watched.process_healthy, &watched.process_started).await;
        });
    }
    // Nobody waits for the board of a data plane that was dropped while it started.
    drop(started.send(Arc::clone(&board)));

    let mut stop = Stop {
        board: Arc::clone(&board),
        asked: shared.stop.subscribe(),
        drain_asked,
        default_grace: Duration::from_millis(options.config.limits.drain_timeout),
    };
    let mut life = Life {
        board: Arc::clone(&board),
        variables: parts.provision.variables.clone(),
        certificate,
        to_init,
    };
    let serve = async {
        life.reach_accepting().await?;
        let ingress = match ingress {
            Ok(bound) => bound,
            Err(address) => bind(&address)?,
        };
        shared.address.send_replace(Some(ingress.local_address()));
        let traffic = (options.start_traffic)(TrafficParts {
            config: Arc::clone(&options.config),
            ingress,
            proxy_protocol: options.proxy_protocol,
            upstream: options.upstream.clone(),
            workers: options.workers,
            live: Arc::clone(&parts.live),
            certificates: parts.certificates.clone(),
            documents: Arc::clone(&parts.documents),
            logs: parts.logs.clone(),
            clock: Arc::clone(&options.clock),
            services: board.services.clone(),
            held: parts.held.clone(),
        })?;
        board.traffic.fill(traffic);
        board.phase.send_replace(Phase::Accepting);
        tracing::info!("accepting traffic");
        life.follow_variables(&options.config).await
    };
    let (grace, outcome) = tokio::select! {
        biased;
        grace = stop.wait() => (grace, Ok(())),
        failed = serve => (Duration::ZERO, failed),
        // init starts a data plane again that has ended; one that is deaf would stay so.
        service = board.services.failure() => {
            (Duration::ZERO, Err(ServerError::Service { service }))
        }
    };
    if let Err(error) = &outcome {
        board.phase.send_replace(Phase::Failed(error.to_string()));
        tracing::error!(%error, "the data plane failed");
    } else {
        board.phase.send_replace(Phase::Draining);
    }
    let hurry = async {
        let mut asked = shared.stop.subscribe();
        let at_once = asked.wait_for(|grace| *grace == Some(Duration::ZERO));
        drop(at_once.await);
    };
    board.traffic.end(grace, hurry).await;
    // The services go on until here: a request in flight may still want a document or leave a log.
    let _shipper_is_gone = end_shipping.send(grace.min(LONGEST_FLUSH));
    drop(shipping.await);
    tasks.shutdown().await;
    // Nobody starts an enclave again that was drained; init does so with a data plane that fails.
    let is_over = !matches!(outcome, Err(ServerError::Service { .. }));
    if let Some(mut to_init) = life.to_init.filter(|_| is_over) {
        to_init
            .send(&mut ToInit::Drained)
            .await
            .map_err(ServerError::Control)?;
    }
    outcome
}

/// What happens between the start of the services and the end.
struct Life {
    board: Arc<Board>,
    variables: watch::Receiver<Option<Arc<Variables>>>,
    certificate: Option<watch::Receiver<bool>>,
    to_init: Option<ToInitWriter>,
}

impl Life {
    /// Waits for the bundle, the certificate and the user process, in this order.
    async fn reach_accepting(&mut self) -> Result<(), ServerError> {
        self.waiting_for("waiting for the first bundle");
        let arrived = self.variables.wait_for(Option::is_some).await;
        arrived.map_err(|_| ServerError::Ended)?;
        if let Some(mut certificate) = self.certificate.take() {
            self.waiting_for("waiting for a certificate");
            let ordered = timeout(CERTIFICATE_PATIENCE, certificate.wait_for(|is| *is)).await;
            if ordered.is_err() {
                tracing::warn!("no certificate yet: starting with a self-signed one");
            }
        }
        if self.to_init.is_some() {
            let variables = self.variables.borrow_and_update().clone();
            let env = control::encoded(&variables.unwrap_or_default());
            self.tell(ToInit::StartProcess { env }).await?;
            self.waiting_for("waiting for the user process");
            let mut healthy = self.board.process_healthy.subscribe();
            let healthy = healthy.wait_for(|verdict| *verdict == Some(true)).await;
            drop(healthy.map_err(|_| ServerError::Ended)?);
        } else {
            self.variables.mark_unchanged();
        }
        Ok(())
    }

    /// Brings hot updates of the variables to the user process, as the configuration says.
    async fn follow_variables(&mut self, config: &EnclaveConfig) -> Result<(), ServerError> {
        loop {
            let changed = self.variables.changed().await;
            changed.map_err(|_| ServerError::Ended)?;
            let variables = self.variables.borrow_and_update().clone();
            let message = match config.env.reload {
                Reload::None => continue,
                Reload::Sighup => ToInit::SignalProcess { signal: SIGHUP },
                Reload::Restart => ToInit::RestartProcess {
                    env: control::encoded(&variables.unwrap_or_default()),
                },
            };
            if self.to_init.is_some() {
                self.tell(message).await?;
            }
        }
    }

    async fn tell(&mut self, mut message: ToInit) -> Result<(), ServerError> {
        match &mut self.to_init {
            Some(to_init) => to_init
                .send(&mut message)
                .await
                .map_err(ServerError::Control),
            None => Ok(()),
        }
    }

    fn waiting_for(&self, what: &'static str) {
        self.board.phase.send_replace(Phase::Waiting(what));
    }
}

/// The ways a drain is asked for.
struct Stop {
    board: Arc<Board>,
    asked: watch::Receiver<Option<Duration>>,
    drain_asked: watch::Receiver<bool>,
    default_grace: Duration,
}

impl Stop {
    /// Waits for the first of them and gives the grace period.
    async fn wait(&mut self) -> Duration {
        let by_init = async {
            if self.drain_asked.wait_for(|is| *is).await.is_err() {
                // There is no init, or it is gone and said nothing.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            asked = self.asked.wait_for(Option::is_some) => {
                asked.ok().and_then(|grace| *grace).unwrap_or(Duration::ZERO)
            }
            () = by_init => self.default_grace,
            () = self.board.drain.notified() => self.default_grace,
        }
    }
}

/// Takes note of what init says, until it says no more.
async fn hear(
    mut from_init: FromInitReader,
    board: Arc<Board>,
    drain: watch::Sender<bool>,
    events: Events,
) {
    loop {
        match from_init.next().await {
            Ok(Some(FromInit::Drain)) => {
                drain.send_replace(true);
            }
            Ok(Some(FromInit::ProcessHealth { is_healthy, reason })) => {
                if let Some(reason) = &reason {
                    events.report("health", reason.clone());
                }
                board.process_problem.store(reason.map(Arc::new));
                board.process_healthy.send_replace(is_healthy);
            }
            Ok(Some(FromInit::ProcessStarted { pid, restarts })) => {
                tracing::info!(pid, restarts, "the user process runs");
                board.process_restarts.store(restarts, Ordering::Relaxed);
                board.process_started.notify_one();
            }
            Ok(Some(FromInit::ProcessExited {
                code,
                signal,
                backoff_ms,
                is_planned,
            })) => {
                tracing::warn!(
                    ?code,
                    ?signal,
                    backoff_ms,
                    is_planned,
                    "the user process ended"
                );
                board.process_healthy.send_replace(Some(false));
                let how = match (code, signal) {
                    (Some(code), _) => format!("exit code {code}"),
                    (None, Some(signal)) => format!("signal {signal}"),
                    (None, None) => "an unknown way".to_owned(),
                };
                if is_planned {
                    let message = format!("the user process starts anew; it ended by {how}");
                    events.report("process-reload", message);
                } else {
                    let message =
                        format!("the user process ended by {how}; again in {backoff_ms} ms");
                    events.report("process-exit", message);
                }
            }
            Ok(None) => {
                // Without init there is nothing to serve.
                tracing::error!("init is gone");
                drain.send_replace(true);
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the channel to init failed");
                drain.send_replace(true);
                return;
            }
        }
    }
}

async fn ship(
    shipper: crate::log_shipper::LogShipper,
    agent: Arc<dyn AgentApi>,
    end: oneshot::Receiver<Duration>,
) {
    let end = async { end.await.unwrap_or(Duration::ZERO) };
    shipper.run(&*agent, end).await;
}

/// What a service is called, and where its end is told.
#[derive(Clone, Copy)]
struct Watched<'s> {
    name: &'static str,
    services: &'s Services,
}

fn listen(
    tasks: &mut JoinSet<()>,
    address: Option<Address>,
    service: &Arc<impl Service>,
    is_at: &watch::Sender<Option<Address>>,
    watched: Watched<'_>,
) -> Result<(), ServerError> {
    let Some(address) = address else {
        return Ok(());
    };
    let listener = bind(&address)?.attach()?;
    is_at.send_replace(Some(listener.local_address()));
    let service = Arc::clone(service);
    let (name, services) = (watched.name, watched.services.clone());
    services.run(name);
    tasks.spawn(async move {
        if let Err(error) = small_http::serve(listener, service).await {
            tracing::error!(%address, %error, "a listening socket broke");
            services.fail(name);
        }
    });
    Ok(())
}

fn bind(address: &Address) -> Result<Bound, ServerError> {
    Bound::open(address).map_err(|source| ServerError::Bind {
        address: address.to_string(),
        source,
    })
}

/// How long a start waits for an ordered certificate before it serves a self-signed one.
const CERTIFICATE_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for the last logs to reach the host.
const LONGEST_FLUSH: Duration = Duration::from_secs(10);
/// signal(7), the same on every architecture Nitro has.
const SIGHUP: i32 = 1;
