//! PID 1, from its first instruction to the end of the machine.
//!
//! The order is that of the design: signals, mounts, modules, heartbeat, loopback, descriptors,
//! entropy, then the data plane, and the user process when its secrets are there. What a profile
//! lacks is skipped and said; what cannot be done without ends the enclave with its reason on the
//! console.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::sync::Arc;

use cloister_nsm::{Device, NsmProvider, SocketNsm};
use cloister_wire::config::{EnclaveConfig, MAX_CONFIG_BYTES};
use cloister_wire::ports;
use cloister_wire::process::ProcessConfig;
use rustix::process::{Resource, Rlimit};

use crate::console::say;
use crate::data_plane::Launch;
use crate::entropy::Seeded;
use crate::error::{Doing, InitError};
use crate::options::Profile;
use crate::supervisor::Supervisor;
use crate::user::spawn::UserProcess;
use crate::{entropy, heartbeat, loopback, modules, mounts, sys, volumes};

/// Where the measured configuration lies.
pub const CONFIG: &str = "/cloister/config.json";
/// Where it says what runs.
pub const PROCESS: &str = "/cloister/process.json";
/// Open descriptors for the whole enclave, where the system lets us have as many.
pub const MAX_DESCRIPTORS: u64 = 1 << 20;

/// Runs as PID 1 until the enclave ends.
pub fn run(profile: &Profile) -> ExitCode {
    let outcome = boot(profile).and_then(Supervisor::run);
    match &outcome {
        Ok(()) => say("the enclave ends"),
        Err(error) => say(&format!("the enclave ends: {error}")),
    }
    if *profile == Profile::Machine && std::process::id() == 1 {
        // A machine without ACPI cannot be switched off; a reset ends it.
        let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn boot(profile: &Profile) -> Result<Supervisor, InitError> {
    let signals = sys::block_all_signals(false).doing("cannot block signals")?;
    sys::forbid_dumps();
    if std::process::id() != 1 {
        return Err(InitError::new(
            "this program is PID 1 of an enclave, nothing else",
        ));
    }
    mounts::mount_all(profile)?;
    match profile {
        Profile::Machine => {
            let loaded = modules::load()?;
            say(&format!("{loaded} kernel modules loaded"));
            match heartbeat::beat(&sys::VsockParent) {
                Ok(()) => say("heartbeat answered"),
                Err(error) => say(&format!("skipped: {error}")),
            }
        }
        Profile::Sandbox(_) => say("skipped: kernel modules and heartbeat, in a sandbox"),
    }
    loopback::up()?;
    let descriptors = raise_descriptors()?;
    say(&format!("`lo` is up, {descriptors} descriptors allowed"));
    let nsm = nsm(profile)?;
    match entropy::seed(&*nsm)? {
        Seeded::Credited => say("entropy of the NSM mixed in and credited"),
        Seeded::Mixed => say("entropy of the NSM mixed in; skipped: credit, not permitted here"),
    }
    let config = EnclaveConfig::from_json(&read_bounded(CONFIG)?).doing(CONFIG)?;
    let mut process = ProcessConfig::from_json(&read_bounded(PROCESS)?).doing(PROCESS)?;
    if config.healthcheck.is_some() {
        // enclave.toml wins over the image; the builder leaves it out already.
        process.healthcheck = None;
    }
    let _ = rustix::system::sethostname(config.name.as_bytes());
    let is_open = config.debug && has_zero_pcr0(&*nsm)?;
    if is_open {
        say("debug enclave: the user process's output is shown");
    }
    volumes::mount_all(&process.volumes)?;
    let launch = Launch::new(profile, CONFIG, process.healthcheck.is_some())?;
    let user = UserProcess::new(process, &config, is_open);
    Ok(Supervisor::new(signals, launch, user, &config))
}

/// The NSM of a profile.
///
/// # Errors
///
/// `/dev/nsm` cannot be opened.
pub fn nsm(profile: &Profile) -> Result<Arc<dyn NsmProvider>, InitError> {
    Ok(match profile {
        Profile::Machine => Arc::new(Device::open().doing("cannot open the NSM")?),
        Profile::Sandbox(folder) => Arc::new(SocketNsm::new(folder.join(ports::NSM_SOCKET))),
    })
}

fn has_zero_pcr0(nsm: &dyn NsmProvider) -> Result<bool, InitError> {
    let pcr0 = nsm.describe_pcr(0).doing("PCR0")?;
    Ok(!pcr0.value.is_empty() && pcr0.value.iter().all(|&byte| byte == 0))
}

/// Without privilege the limit can be raised only as far as it already may go.
fn raise_descriptors() -> Result<u64, InitError> {
    let wanted = |most| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    if rustix::process::setrlimit(Resource::Nofile, wanted(MAX_DESCRIPTORS)).is_ok() {
        return Ok(MAX_DESCRIPTORS);
    }
    let most = rustix::process::getrlimit(Resource::Nofile)
        .maximum
        .unwrap_or(MAX_DESCRIPTORS);
    rustix::process::setrlimit(Resource::Nofile, wanted(most)).doing("cannot raise descriptors")?;
    say("skipped: more descriptors, not permitted here");
    Ok(most)
}

fn read_bounded(path: &str) -> Result<Vec<u8>, InitError> {
    let what = format!("cannot read `{path}`");
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_CONFIG_BYTES).unwrap_or(u64::MAX);
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .doing(&what)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .doing(&what)?;
    Ok(bytes)
}
