//! The data plane's process: made by descriptor, with one capability, bound to init's life.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::process::{Pid, Signal};

use crate::channel::Channel;
use crate::error::{Doing, InitError};
use crate::options::{DATA_PLANE, HEALTH, Profile, TOLD};
use crate::user::capabilities;
use crate::{console, sys};

/// What the data plane's process is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPlaneOptions {
    /// What the enclave stands on.
    pub profile: Profile,
    /// The control channel.
    pub control_fd: RawFd,
    /// `/cloister/config.json`, open for reading.
    pub config_fd: RawFd,
    /// Init says whether the user process is healthy; else the data plane asks it.
    pub is_health_told: bool,
}

/// What is needed to start it, again and again.
#[derive(Debug)]
pub struct Launch {
    /// Our own program, opened before anything else happened.
    program: File,
    config: File,
    profile: Profile,
    tells_health: bool,
}

impl Launch {
    /// From the program and the configuration as they are now. With `tells_health` init says whether
    /// the user process is healthy.
    ///
    /// # Errors
    ///
    /// Either cannot be opened.
    pub fn new(profile: &Profile, config: &str, tells_health: bool) -> Result<Self, InitError> {
        Ok(Self {
            program: File::open("/proc/self/exe").doing("cannot open our own program")?,
            config: File::open(config).doing(&format!("cannot open `{config}`"))?,
            profile: profile.clone(),
            tells_health,
        })
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn start(&self) -> io::Result<(Pid, Channel)> {
        let (channel, other) = Channel::pair()?;
        if let Some(pid) = sys::clone_into(0)? {
            return Ok((pid, channel));
        }
        drop(channel);
        let error = self.become_data_plane(&other);
        console::say(&format!("cannot start the data plane: {error}"));
        sys::leave(127);
    }

    fn become_data_plane(&self, control: &OwnedFd) -> io::Error {
        let prepare = || -> io::Result<File> {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The numbers it is told must not be those of what is still needed here.
            let high = |fd: &dyn AsFd| {
                rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), FIRST_FREE_FD).map(File::from)
            };
            let (program, control) = (high(&self.program)?, high(control)?);
            let config = high(&File::open(
                "/proc/self/fd/".to_owned() + &raw(&self.config),
            )?)?;
            sys::close_on_exec_from(3);
            sys::place(&control, CONTROL_FD)?;
            sys::place(&config, CONFIG_FD)?;
            capabilities::keep_only(capabilities::DATA_PLANE)?;
            Ok(program)
        };
        match prepare() {
            Ok(program) => {
                sys::reset_signals();
                sys::exec_descriptor(&program, &arguments(&self.profile, self.tells_health))
            }
            Err(error) => error,
        }
    }
}

fn raw(file: &File) -> String {
    use std::os::fd::AsRawFd;
    file.as_raw_fd().to_string()
}

fn arguments(profile: &Profile, tells_health: bool) -> Vec<CString> {
    let mut words = vec![
        "cloister-enclave".to_owned(),
        DATA_PLANE.to_owned(),
        "--control-fd".to_owned(),
        CONTROL_FD.to_string(),
        "--config-fd".to_owned(),
        CONFIG_FD.to_string(),
    ];
    if let Profile::Sandbox(folder) = profile {
        words.push("--sandbox-dir".to_owned());
        words.push(folder.display().to_string());
    }
    if tells_health {
        words.push(HEALTH.to_owned());
        words.push(TOLD.to_owned());
    }
    words
        .into_iter()
        .filter_map(|word| CString::new(word).ok())
        .collect()
}

const CONTROL_FD: RawFd = 3;
const CONFIG_FD: RawFd = 4;
const FIRST_FREE_FD: RawFd = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_read_back_as_they_were_meant() {
        for is_health_told in [false, true] {
            let profile = Profile::Sandbox("/run/cloister/v".into());
            let words = arguments(&profile, is_health_told)
                .into_iter()
                .map(|word| word.into_string().unwrap().into());
            let options = DataPlaneOptions {
                profile,
                control_fd: CONTROL_FD,
                config_fd: CONFIG_FD,
                is_health_told,
            };
            assert_eq!(
                crate::options::parse(words),
                Ok(crate::options::Options::DataPlane(options))
            );
        }
    }
}
