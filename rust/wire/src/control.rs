//! The channel between init (PID 1) and the data plane: one JSON object a line over a socket pair.
//!
//! Both ends are our own code inside the enclave. Lines are bounded all the same.

use serde::{Deserialize, Serialize};

/// Longest line, in bytes. An environment crosses here, and `execve` takes 2 MiB at most.
pub const MAX_LINE_BYTES: usize = 8 << 20;

/// What the data plane tells init.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToInit {
    /// The drain is over; init may power off.
    Drained,
    /// Restart the user process with this environment.
    RestartProcess {
        /// Variables of the bundle, laid over the image's ENV. Values are bytes, base64.
        env: Vec<(String, String)>,
    },
    /// Send a signal to the user process.
    SignalProcess {
        /// Signal number.
        signal: i32,
    },
    /// Secrets are there: start the user process. Ignored when it runs already (the data plane was
    /// restarted).
    StartProcess {
        /// Variables of the bundle, laid over the image's ENV. Values are bytes, base64.
        env: Vec<(String, String)>,
    },
}

/// What init tells the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromInit {
    /// Stop accepting, finish, then say [`ToInit::Drained`].
    Drain,
    /// The user process ended.
    ProcessExited {
        /// Exit code, when it exited.
        code: Option<i32>,
        /// Signal, when it was killed.
        signal: Option<i32>,
        /// Until it is started again, milliseconds.
        backoff_ms: u64,
        /// It was ended to be started anew, with [`ToInit::RestartProcess`].
        #[serde(default)]
        is_planned: bool,
    },
    /// What HEALTHCHECK of the image says of the user process, where it decides: at each start, at
    /// each change, and to a data plane that was restarted.
    ProcessHealth {
        /// The verdict; `None`: not known yet.
        is_healthy: Option<bool>,
        /// Why it is not healthy, without a word of the check's own output.
        reason: Option<String>,
    },
    /// The user process runs.
    ProcessStarted {
        /// Process id, in init's namespace.
        pid: i32,
        /// How often it had ended by itself and was started again.
        restarts: u64,
    },
}
