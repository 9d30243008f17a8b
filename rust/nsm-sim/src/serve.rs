//! The simulator on a Unix socket, served by blocking calls: what [`cloister_nsm::SocketNsm`] talks
//! to. The sandbox launcher has an event loop of its own over [`cloister_nsm::frame`].

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cloister_nsm::{Exchange, NsmError, frame};

/// Answers the requests of one connection until its peer closes it.
///
/// # Errors
///
/// What the stream says, `InvalidData` for a message that is too long, a time-out when the peer is
/// silent for longer than `idle`.
pub fn serve_connection(
    stream: &mut UnixStream,
    module: &impl Exchange,
    idle: Duration,
) -> io::Result<()> {
    stream.set_read_timeout(Some(idle))?;
    stream.set_write_timeout(Some(idle))?;
    while let Some(request) = frame::read(stream)? {
        let answer = module
            .exchange(&request)
            .map_err(|error: NsmError| io::Error::other(error))?;
        frame::write(stream, &answer)?;
    }
    Ok(())
}
