//! Where the transaction logs of a development data plane go.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Nowhere.
    Dropped,
    /// Appended to a file, a JSON object a line.
    File(PathBuf),
    /// To standard error, a JSON object a line.
    Stderr,
}

/// An output that is open.
pub(crate) struct LogWriter(Mutex<Sink>);

enum Sink {
    Dropped,
    File(File),
    Stderr(io::Stderr),
}

impl LogWriter {
    pub(crate) fn open(output: LogOutput) -> io::Result<Self> {
        Ok(Self(Mutex::new(match output {
            LogOutput::Dropped => Sink::Dropped,
            LogOutput::File(path) => {
                Sink::File(File::options().create(true).append(true).open(path)?)
            }
            LogOutput::Stderr => Sink::Stderr(io::stderr()),
        })))
    }

    /// Writes whole lines. The lines are JSON, so control characters in them are escaped.
    pub(crate) fn write(&self, lines: &[u8]) -> io::Result<()> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::Dropped => Ok(()),
            Sink::File(file) => file.write_all(lines),
            Sink::Stderr(stderr) => stderr.write_all(lines),
        }
    }
}
