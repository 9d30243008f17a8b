//! The arguments: which transport, and which of the two processes this is.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::data_plane::DataPlaneOptions;
use crate::error::InitError;

/// What the enclave stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// `AF_VSOCK` and `/dev/nsm`: Nitro, or QEMU.
    Machine,
    /// Unix sockets in this folder, inside the namespaces of `cloister-sandbox`.
    Sandbox(PathBuf),
}

/// Which process this is.
#[derive(Debug, PartialEq, Eq)]
pub enum Options {
    /// The data plane.
    DataPlane(DataPlaneOptions),
    /// PID 1.
    Init(Profile),
}

/// Reads the arguments, the program's name first.
///
/// # Errors
///
/// An unknown or incomplete option. A word that is no option is passed over in PID 1: a kernel hands
/// on what it does not know of its command line, and AWS's has such a word (`nomodules`).
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Options, InitError> {
    let mut arguments = arguments.skip(1).peekable();
    let is_data_plane = arguments.next_if(|word| word == DATA_PLANE).is_some();
    let (mut folder, mut control, mut config) = (None, None, None);
    let mut is_health_told = false;
    while let Some(word) = arguments.next() {
        if !is_data_plane && !word.as_encoded_bytes().starts_with(b"--") {
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| InitError::new(format!("`{}` needs a value", word.display())))?;
        match word.to_str() {
            Some("--sandbox-dir") => folder = Some(PathBuf::from(value)),
            Some("--control-fd") if is_data_plane => control = Some(descriptor(&value)?),
            Some("--config-fd") if is_data_plane => config = Some(descriptor(&value)?),
            Some(HEALTH) if is_data_plane && value == TOLD => is_health_told = true,
            _ => return Err(InitError::new(format!("unknown: `{}`", word.display()))),
        }
    }
    if folder.as_ref().is_some_and(|folder| !folder.is_absolute()) {
        return Err(InitError::new("`--sandbox-dir` must be an absolute path"));
    }
    let profile = folder.map_or(Profile::Machine, Profile::Sandbox);
    if !is_data_plane {
        return Ok(Options::Init(profile));
    }
    match (control, config) {
        (Some(control_fd), Some(config_fd)) => Ok(Options::DataPlane(DataPlaneOptions {
            profile,
            control_fd,
            config_fd,
            is_health_told,
        })),
        _ => Err(InitError::new(
            "`--control-fd` and `--config-fd` are needed",
        )),
    }
}

fn descriptor(value: &OsString) -> Result<RawFd, InitError> {
    value
        .to_str()
        .and_then(|value| value.parse().ok())
        .filter(|&number| number > 2)
        .ok_or_else(|| InitError::new(format!("not a descriptor: `{}`", value.display())))
}

/// First argument of the data plane's process.
pub const DATA_PLANE: &str = "data-plane";
/// Who says whether the user process is healthy: followed by [`TOLD`], or absent.
pub const HEALTH: &str = "--health";
/// Init does.
pub const TOLD: &str = "told";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Options, InitError> {
        parse(
            std::iter::once("/init")
                .chain(words.iter().copied())
                .map(OsString::from),
        )
    }

    #[test]
    fn the_transport_comes_from_the_arguments() {
        assert_eq!(parsed(&[]), Ok(Options::Init(Profile::Machine)));
        assert_eq!(parsed(&["nomodules"]), Ok(Options::Init(Profile::Machine)));
        let sandbox = Profile::Sandbox("/v".into());
        assert_eq!(
            parsed(&["--sandbox-dir", "/v"]),
            Ok(Options::Init(sandbox.clone()))
        );
        let words = [
            "data-plane",
            "--control-fd",
            "3",
            "--config-fd",
            "4",
            "--sandbox-dir",
            "/v",
        ];
        let options = DataPlaneOptions {
            profile: sandbox,
            control_fd: 3,
            config_fd: 4,
            is_health_told: false,
        };
        assert_eq!(parsed(&words), Ok(Options::DataPlane(options)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for words in [
            &["--sandbox-dir"][..],
            &["--sandbox-dir", "v"],
            &["--control-fd", "3"],
            &["data-plane"],
            &["data-plane", "--control-fd", "2", "--config-fd", "4"],
            &["--splash"],
            &["nomodules", "--sandbox-dir"],
            &["data-plane", "nomodules"],
            &["--health", "told"],
            &[
                "data-plane",
                "--control-fd",
                "3",
                "--config-fd",
                "4",
                "--health",
                "asked",
            ],
        ] {
            assert!(parsed(words).is_err(), "{words:?}");
        }
    }
}
