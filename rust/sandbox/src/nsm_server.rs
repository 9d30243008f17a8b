//! Serves the simulated NSM on a Unix socket, from outside the enclave's namespaces.
//!
//! Each message is a length (`u32`, big-endian, at most [`MAX_MESSAGE_BYTES`]) and that many bytes of
//! CBOR, in both directions; what they mean is the simulator's. The peer is the enclave and is not
//! trusted: connections are few, buffers bounded, and nothing here waits for it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::PollFlags;

/// Longest message, in bytes (`NSM_RESPONSE_MAX_SIZE` in nsm-api, `src/driver/mod.rs`).
pub const MAX_MESSAGE_BYTES: usize = 0x3000;
/// Most connections at once; the enclave has one data plane and one init.
pub const MAX_CONNECTIONS: usize = 16;

/// The socket and its connections.
#[derive(Debug)]
pub struct NsmServer {
    listener: UnixListener,
    connections: Vec<Connection>,
}

impl NsmServer {
    /// Listens on `path`.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            connections: Vec::new(),
        })
    }

    /// What to poll, and for what: the listener first, then each connection.
    pub fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let listener = if self.connections.len() < MAX_CONNECTIONS {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        std::iter::once((self.listener.as_fd(), listener)).chain(
            self.connections
                .iter()
                .map(|connection| (connection.stream.as_fd(), connection.interest())),
        )
    }

    /// Does what can be done without waiting; `handle` answers one request.
    pub fn progress(&mut self, mut handle: impl FnMut(&[u8]) -> Vec<u8>) {
        while self.connections.len() < MAX_CONNECTIONS {
            let Ok((stream, _)) = self.listener.accept() else {
                break;
            };
            if stream.set_nonblocking(true).is_ok() {
                self.connections.push(Connection {
                    stream,
                    input: Vec::new(),
                    output: Vec::new(),
                });
            }
        }
        self.connections
            .retain_mut(|connection| connection.progress(&mut handle).is_ok());
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Connection {
    fn interest(&self) -> PollFlags {
        if self.output.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::OUT
        }
    }

    /// An error means that the connection is over.
    fn progress(&mut self, handle: &mut impl FnMut(&[u8]) -> Vec<u8>) -> io::Result<()> {
        loop {
            if !self.output.is_empty() {
                match self.stream.write(&self.output) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => drop(self.output.drain(..written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
                continue;
            }
            if let Some(request) = take_message(&mut self.input)? {
                let response = handle(&request);
                let length = u32::try_from(response.len()).map_err(io::Error::other)?;
                self.output.extend(length.to_be_bytes());
                self.output.extend(response);
                continue;
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.input.extend(bytes.iter().take(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes one whole message off the front of `input`.
fn take_message(input: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some((length, rest)) = input.split_first_chunk() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(io::Error::other)?;
    if length == 0 || length > MAX_MESSAGE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else {
        return Ok(None);
    };
    input.drain(..length.saturating_add(4));
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_their_length_says() {
        let mut input = vec![0, 0, 0, 2, b'a', b'b', 0, 0, 0, 1];
        assert_eq!(take_message(&mut input).unwrap().unwrap(), b"ab");
        assert_eq!(take_message(&mut input).unwrap(), None);
        input.push(b'c');
        assert_eq!(take_message(&mut input).unwrap().unwrap(), b"c");
        assert!(input.is_empty());
    }

    #[test]
    fn a_message_that_is_too_long_ends_the_connection() {
        let long = u32::try_from(MAX_MESSAGE_BYTES).unwrap().saturating_add(1);
        take_message(&mut long.to_be_bytes().to_vec()).unwrap_err();
        take_message(&mut vec![0, 0, 0, 0]).unwrap_err();
    }

    #[test]
    fn a_request_is_answered_even_in_pieces() {
        let path = std::env::temp_dir().join(format!("nsm-{}.sock", std::process::id()));
        let mut server = NsmServer::bind(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for piece in [&[0, 0][..], &[0, 3, b'x'], b"yz"] {
            client.write_all(piece).unwrap();
            server.progress(|request| request.repeat(2));
        }
        let mut answer = [0; 10];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"\0\0\0\x06xyzxyz");
    }
}
