//! The simulated NSM of the sandbox, over a Unix socket.
//!
//! It stands where the hypervisor would: on the other side of a border that the enclave cannot cross,
//! so what it measures is not the enclave's word. One connection for each request: requests are
//! rare, and a connection that broke then needs no care.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::call::Exchange;
use crate::frame;
use crate::provider::NsmError;

/// An NSM behind a Unix socket.
#[derive(Debug, Clone)]
pub struct SocketNsm {
    path: PathBuf,
    deadline: Duration,
}

impl SocketNsm {
    /// The NSM that listens at `path`, with [`DEADLINE`] for each request. Nothing is connected yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            deadline: DEADLINE,
        }
    }

    /// The same with another deadline for each request, connecting included.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, source: io::Error) -> NsmError {
        match source.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => NsmError::Deadline {
                after: self.deadline,
            },
            io::ErrorKind::InvalidData => NsmError::Protocol {
                problem: "is longer than 12 KiB",
            },
            _ => NsmError::Io {
                at: self.path.display().to_string(),
                source,
            },
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A full backlog blocks `connect` for as long as writing may block (unix(7)).
        socket.set_write_timeout(Some(self.deadline))?;
        socket.connect(&SockAddr::unix(&self.path)?)?;
        Ok(UnixStream::from(OwnedFd::from(socket)))
    }
}

impl Exchange for SocketNsm {
    fn exchange(&self, request: &[u8]) -> Result<Vec<u8>, NsmError> {
        let started = Instant::now();
        let mut stream = self.connect().map_err(|error| self.failed(error))?;
        frame::write(&mut stream, request).map_err(|error| self.failed(error))?;
        let mut stream = Timed {
            stream,
            started,
            deadline: self.deadline,
        };
        match frame::read(&mut stream).map_err(|error| self.failed(error))? {
            Some(answer) => Ok(answer),
            None => Err(NsmError::Protocol {
                problem: "did not come before the stream's end",
            }),
        }
    }
}

/// A stream whose reads all share one deadline: a peer that sends a byte now and then gains nothing.
struct Timed {
    stream: UnixStream,
    started: Instant,
    deadline: Duration,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_sub(self.started.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

/// Longest a request may take. A document takes the simulator a few milliseconds.
pub const DEADLINE: Duration = Duration::from_secs(10);
