//! HEALTHCHECK of the image, where it decides whether the user process is healthy: runs it when it is
//! due, one run at a time, and says what changed.
//!
//! The supervisor owns one of these for each run of the user process. What a run is and how it is
//! confined is [`crate::user::check`]; when and what it amounts to is [`course`]. Nothing here waits: a
//! run that its examiner does not end is killed [`SLACK`] later.

pub mod course;

use std::time::{Duration, Instant};

use cloister_wire::control::FromInit;
use cloister_wire::process::CommandCheck;
use rustix::process::Pid;

use self::course::Course;
use crate::console::say;
use crate::sys;
use crate::user::spawn::{Examination, Finding, Running, UserProcess};

/// Added to the time that a run may take before it is taken for stuck.
const SLACK: Duration = Duration::from_secs(3);

/// The checks of one run of the user process.
#[derive(Debug)]
pub struct HealthCheck {
    check: CommandCheck,
    course: Course,
    started: Instant,
    state: State,
    problem: Option<String>,
}

#[derive(Debug)]
enum State {
    Idle {
        due: Instant,
    },
    Asking {
        examination: Examination,
        began: Instant,
        kill_at: Instant,
    },
}

impl HealthCheck {
    /// For a process that has just started; `None` when HEALTHCHECK does not decide.
    pub fn of(user: &UserProcess) -> Option<Self> {
        let check = user.healthcheck()?.clone();
        let mut course = Course::new(&check);
        let started = Instant::now();
        let due = later(started, course.pause(Duration::ZERO));
        Some(Self {
            check,
            course,
            started,
            state: State::Idle { due },
            problem: None,
        })
    }

    /// What the data plane is told.
    pub fn message(&self) -> FromInit {
        let is_healthy = self.course.verdict();
        FromInit::ProcessHealth {
            is_healthy,
            reason: self
                .problem
                .clone()
                .filter(|_| is_healthy != Some(true))
                .map(|problem| format!("HEALTHCHECK of the image: {problem}")),
        }
    }

    /// When this has to be looked at again.
    pub fn due(&self) -> Instant {
        match self.state {
            State::Idle { due } => due,
            State::Asking { kill_at, .. } => kill_at,
        }
    }

    /// Starts the run that is due, or kills the one that is stuck.
    pub fn advance(&mut self, user: &UserProcess, running: &Running) {
        let now = Instant::now();
        match &mut self.state {
            State::Idle { due } if *due <= now => match user.examine(&self.check, running) {
                Ok(examination) => {
                    let limit = Duration::from_millis(self.check.timeout_ms.into());
                    self.state = State::Asking {
                        examination,
                        began: now,
                        kill_at: later(now, limit.saturating_add(SLACK)),
                    };
                }
                Err(error) => self.note(now, Some(error.to_string())),
            },
            State::Asking {
                examination,
                kill_at,
                ..
            } if *kill_at <= now => {
                // Its end is heard of like any other; the examiner dies with it.
                sys::kill(examination.pid, libc::SIGKILL);
                *kill_at = later(now, SLACK);
            }
            State::Idle { .. } | State::Asking { .. } => {}
        }
    }

    /// Takes the end of a child of init. True when it was the run, and the verdict or its reason
    /// changed.
    pub fn ended(&mut self, pid: Pid, user: &UserProcess) -> bool {
        if !matches!(&self.state, State::Asking { examination, .. } if examination.pid == pid) {
            return false;
        }
        let idle = State::Idle { due: self.started };
        let State::Asking {
            examination, began, ..
        } = std::mem::replace(&mut self.state, idle)
        else {
            return false;
        };
        let before = self.message();
        let Finding { problem, output } = examination.finding();
        if user.is_output_shown() {
            show(&output);
        }
        self.note(began, problem);
        let message = self.message();
        if message != before {
            describe(&message);
        }
        message != before
    }

    fn note(&mut self, began: Instant, problem: Option<String>) {
        let now = Instant::now();
        let since_start = began.saturating_duration_since(self.started);
        self.course.observe(problem.is_none(), since_start);
        self.problem = problem;
        let elapsed = now.saturating_duration_since(self.started);
        let due = later(now, self.course.pause(elapsed));
        self.state = State::Idle { due };
    }
}

impl Drop for HealthCheck {
    /// The run belongs to the process that is gone; init hears of its end as of any orphan's.
    fn drop(&mut self) {
        if let State::Asking { examination, .. } = &self.state {
            sys::kill(examination.pid, libc::SIGKILL);
        }
    }
}

fn describe(message: &FromInit) {
    let FromInit::ProcessHealth { is_healthy, reason } = message else {
        return;
    };
    let verdict = match is_healthy {
        Some(true) => "healthy",
        Some(false) => "not healthy",
        None => "not known to be healthy yet",
    };
    let reason = reason.as_ref().map(|reason| format!(": {reason}"));
    say(&format!(
        "the user process is {verdict}{}",
        reason.unwrap_or_default()
    ));
}

fn show(output: &[u8]) {
    for line in output.split(|&byte| byte == b'\n') {
        if !line.is_empty() {
            say(&format!("healthcheck: {}", String::from_utf8_lossy(line)));
        }
    }
}

fn later(from: Instant, pause: Duration) -> Instant {
    from.checked_add(pause).unwrap_or(from)
}
