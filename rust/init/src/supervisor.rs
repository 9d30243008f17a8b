//! Init's loop: one thread, one `poll`. It keeps the data plane and the user process running, and
//! ends the enclave in order when asked to.

use std::fs::File;
use std::time::{Duration, Instant};

use cloister_wire::config::EnclaveConfig;
use cloister_wire::control::{FromInit, ToInit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use crate::backoff::Backoff;
use crate::channel::Channel;
use crate::console::say;
use crate::data_plane::Launch;
use crate::error::InitError;
use crate::health_check::HealthCheck;
use crate::sys;
use crate::user::spawn::{Running, UserProcess};

/// How long the data plane stays down after it ended.
pub const DATA_PLANE_PAUSE: Duration = Duration::from_millis(200);
/// From the stop signal to the kill of the user process (Docker's own).
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// Added to the drain's own time before it is taken for stuck.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Everything that init keeps running.
#[derive(Debug)]
pub struct Supervisor {
    signals: File,
    launch: Launch,
    data_plane: DataPlane,
    user: UserProcess,
    process: Process,
    /// The last environment of the data plane, once there was one.
    environment: Option<Vec<(String, String)>>,
    backoff: Backoff,
    restarts: u64,
    drain_timeout: Duration,
    phase: Phase,
}

#[derive(Debug)]
enum DataPlane {
    Down { until: Instant },
    Up { pid: Pid, channel: Channel },
}

#[derive(Debug)]
enum Process {
    /// Not asked for yet, or over for good.
    Absent,
    Down {
        until: Instant,
    },
    Up {
        running: Running,
        since: Instant,
        /// HEALTHCHECK of the image, when it decides.
        health: Option<Box<HealthCheck>>,
        /// It was asked to stop, and is killed then.
        kill_at: Option<Instant>,
        /// It ends to be started anew, at once.
        is_planned: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The data plane finishes what is in flight.
    Draining {
        until: Instant,
    },
    /// The user process ends.
    Stopping,
}

impl Supervisor {
    /// Nothing is started yet.
    pub fn new(signals: File, launch: Launch, user: UserProcess, config: &EnclaveConfig) -> Self {
        Self {
            signals,
            launch,
            data_plane: DataPlane::Down {
                until: Instant::now(),
            },
            user,
            process: Process::Absent,
            environment: None,
            backoff: Backoff::default(),
            restarts: 0,
            drain_timeout: Duration::from_millis(config.limits.drain_timeout),
            phase: Phase::Running,
        }
    }

    /// Runs until the enclave was drained.
    ///
    /// # Errors
    ///
    /// None today: everything that ends is started again.
    pub fn run(mut self) -> Result<(), InitError> {
        loop {
            self.start_what_is_due();
            if self.phase == Phase::Stopping && matches!(self.process, Process::Absent) {
                return Ok(());
            }
            self.wait();
            while let Some(signal) = sys::next_signal(&self.signals) {
                if [libc::SIGTERM, libc::SIGINT, libc::SIGPWR].contains(&signal) {
                    self.drain();
                }
            }
            // Messages first: the data plane may have said something before it ended.
            self.hear_data_plane();
            self.copy_output();
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                self.ended(pid, status);
            }
        }
    }

    fn start_what_is_due(&mut self) {
        let now = Instant::now();
        match self.phase {
            Phase::Draining { until } if until <= now => {
                say("the drain took too long");
                self.stop_process();
            }
            Phase::Draining { .. } | Phase::Running | Phase::Stopping => {}
        }
        let is_running = self.phase == Phase::Running;
        if let DataPlane::Down { until } = self.data_plane
            && until <= now
            && is_running
        {
            self.start_data_plane(now);
        }
        match &mut self.process {
            Process::Down { until } if *until <= now && is_running => self.start_process(),
            Process::Down { .. } if !is_running => self.process = Process::Absent,
            Process::Up {
                running,
                kill_at: Some(at),
                ..
            } if *at <= now => sys::kill(running.pid, libc::SIGKILL),
            Process::Up {
                running,
                health: Some(health),
                kill_at: None,
                ..
            } => health.advance(&self.user, running),
            Process::Up { .. } | Process::Down { .. } | Process::Absent => {}
        }
    }

    fn start_data_plane(&mut self, now: Instant) {
        let retry = now.checked_add(DATA_PLANE_PAUSE).unwrap_or(now);
        self.data_plane = match self.launch.start() {
            Ok((pid, channel)) => {
                say("the data plane starts");
                DataPlane::Up { pid, channel }
            }
            Err(error) => {
                say(&format!("cannot start the data plane: {error}"));
                DataPlane::Down { until: retry }
            }
        };
        // A data plane that comes back must know what runs already.
        if let Process::Up {
            running, health, ..
        } = &self.process
        {
            let pid = running.pid.as_raw_nonzero().get();
            let restarts = self.restarts;
            let verdict = health.as_ref().map(|health| health.message());
            self.tell(&FromInit::ProcessStarted { pid, restarts });
            self.tell_health(verdict);
        }
    }

    fn start_process(&mut self) {
        let Some(environment) = &self.environment else {
            self.process = Process::Absent;
            return;
        };
        match self.user.start(environment) {
            Ok(running) => {
                let pid = running.pid.as_raw_nonzero().get();
                say("the user process starts");
                let health = HealthCheck::of(&self.user).map(Box::new);
                let verdict = health.as_ref().map(|health| health.message());
                self.process = Process::Up {
                    running,
                    since: Instant::now(),
                    health,
                    kill_at: None,
                    is_planned: false,
                };
                let restarts = self.restarts;
                self.tell(&FromInit::ProcessStarted { pid, restarts });
                self.tell_health(verdict);
            }
            Err(error) => {
                say(&format!("the user process cannot be started: {error}"));
                self.process_is_down(Duration::ZERO, Some(127), None);
            }
        }
    }

    fn process_is_down(&mut self, ran_for: Duration, code: Option<i32>, signal: Option<i32>) {
        let pause = self.backoff.pause(ran_for);
        let backoff_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.process = match Instant::now().checked_add(pause) {
            Some(until) if self.phase == Phase::Running => Process::Down { until },
            _ => Process::Absent,
        };
        self.tell(&FromInit::ProcessExited {
            code,
            signal,
            backoff_ms,
            is_planned: false,
        });
    }

    /// Starts it anew after it was asked to end: that is no failure, so no pause grows.
    fn process_made_way(&mut self, code: Option<i32>, signal: Option<i32>) {
        self.tell(&FromInit::ProcessExited {
            code,
            signal,
            backoff_ms: 0,
            is_planned: true,
        });
        self.start_process();
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if !status.exited() && !status.signaled() {
            return;
        }
        if matches!(&self.data_plane, DataPlane::Up { pid: own, .. } if *own == pid) {
            self.data_plane_ended(status);
        } else if matches!(&self.process, Process::Up { running, .. } if running.pid == pid)
            && let Process::Up {
                running,
                since,
                is_planned,
                ..
            } = std::mem::replace(&mut self.process, Process::Absent)
        {
            let ran_for = since.elapsed();
            let end = running.end(status);
            say(&format!(
                "the user process ended after {} ms: {}",
                ran_for.as_millis(),
                described(end.code, end.signal, end.failure.as_deref())
            ));
            if is_planned && self.phase == Phase::Running {
                self.process_made_way(end.code, end.signal);
            } else {
                self.restarts = self.restarts.saturating_add(1);
                self.process_is_down(ran_for, end.code, end.signal);
            }
        } else if let Process::Up {
            health: Some(health),
            ..
        } = &mut self.process
            && health.ended(pid, &self.user)
        {
            let verdict = health.message();
            self.tell(&verdict);
        }
        // Anybody else is an orphan that was given to us.
    }

    fn data_plane_ended(&mut self, status: WaitStatus) {
        let how = described(status.exit_status(), status.terminating_signal(), None);
        say(&format!("the data plane ended: {how}"));
        let now = Instant::now();
        let until = now.checked_add(DATA_PLANE_PAUSE).unwrap_or(now);
        self.data_plane = DataPlane::Down { until };
        if matches!(self.phase, Phase::Draining { .. }) {
            self.stop_process();
        }
    }

    fn hear_data_plane(&mut self) {
        let DataPlane::Up { pid, channel } = &mut self.data_plane else {
            return;
        };
        channel.flush();
        let messages = match channel.messages() {
            Ok(messages) => messages,
            Err(error) => {
                // It is ending, or out of its mind; either way it is started again.
                if error.kind() != std::io::ErrorKind::UnexpectedEof {
                    say(&format!("control channel: {error}"));
                }
                sys::kill(*pid, libc::SIGKILL);
                return;
            }
        };
        for message in messages {
            match message {
                ToInit::Drained => {
                    say("drained");
                    self.stop_process();
                }
                ToInit::RestartProcess { env } => {
                    self.environment = Some(env);
                    self.restart_process();
                }
                ToInit::SignalProcess { signal } => {
                    if let Process::Up { running, .. } = &self.process {
                        sys::kill(running.pid, signal);
                    }
                }
                ToInit::StartProcess { env } => {
                    self.environment = Some(env);
                    if matches!(self.process, Process::Absent) && self.phase == Phase::Running {
                        self.start_process();
                    }
                }
            }
        }
    }

    fn restart_process(&mut self) {
        let signal = self.user.stop_signal();
        match &mut self.process {
            Process::Up {
                running,
                kill_at,
                is_planned,
                ..
            } => {
                sys::kill(running.pid, signal);
                *is_planned = true;
                // Asked once more, it has no more time.
                *kill_at = kill_at.or_else(|| Instant::now().checked_add(STOP_GRACE));
            }
            Process::Down { .. } | Process::Absent if self.phase == Phase::Running => {
                self.start_process();
            }
            Process::Down { .. } | Process::Absent => {}
        }
    }

    fn drain(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        say("drain");
        let limit = self.drain_timeout.saturating_add(DRAIN_SLACK);
        let now = Instant::now();
        self.phase = Phase::Draining {
            until: now.checked_add(limit).unwrap_or(now),
        };
        if matches!(self.data_plane, DataPlane::Up { .. }) {
            self.tell(&FromInit::Drain);
        } else {
            self.stop_process();
        }
    }

    fn stop_process(&mut self) {
        if self.phase == Phase::Stopping {
            return;
        }
        self.phase = Phase::Stopping;
        self.restart_process();
    }

    fn tell(&mut self, message: &FromInit) {
        if let DataPlane::Up { channel, .. } = &mut self.data_plane {
            channel.say(message);
        }
    }

    fn tell_health(&mut self, verdict: Option<FromInit>) {
        if let Some(verdict) = verdict {
            self.tell(&verdict);
        }
    }

    fn copy_output(&mut self) {
        if let Process::Up { running, .. } = &mut self.process
            && let Some(output) = &mut running.output
            && !output.copy()
        {
            running.output = None;
        }
    }

    fn wait(&self) {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let DataPlane::Up { channel, .. } = &self.data_plane {
            let (fd, flags) = channel.interest();
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        if let Process::Up { running, .. } = &self.process
            && let Some(output) = &running.output
        {
            fds.push(PollFd::from_borrowed_fd(output.fd(), PollFlags::IN));
        }
        let now = Instant::now();
        let next = [self.data_plane_due(), self.process_due(), self.drain_due()]
            .into_iter()
            .flatten()
            .map(|at| at.saturating_duration_since(now))
            .min()
            .map(|left| left.saturating_add(Duration::from_millis(1)));
        let timeout = next.and_then(|left| Timespec::try_from(left).ok());
        // An interruption or a lack of memory ends the wait early, which is harmless.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    fn data_plane_due(&self) -> Option<Instant> {
        match self.data_plane {
            DataPlane::Down { until } if self.phase == Phase::Running => Some(until),
            DataPlane::Down { .. } | DataPlane::Up { .. } => None,
        }
    }

    fn process_due(&self) -> Option<Instant> {
        match &self.process {
            Process::Absent => None,
            Process::Down { until } => Some(*until),
            Process::Up {
                kill_at: Some(at), ..
            } => Some(*at),
            Process::Up { health, .. } => health.as_ref().map(|health| health.due()),
        }
    }

    fn drain_due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining { until } => Some(until),
            Phase::Running | Phase::Stopping => None,
        }
    }
}

fn described(code: Option<i32>, signal: Option<i32>, failure: Option<&str>) -> String {
    match (failure, code, signal) {
        (Some(failure), _, _) => failure.to_owned(),
        (None, Some(code), _) => format!("exit code {code}"),
        (None, None, Some(signal)) => format!("signal {signal}"),
        (None, None, None) => "for an unknown reason".to_owned(),
    }
}
