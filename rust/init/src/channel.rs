//! Init's end of the control channel: JSON lines over a socket pair, never waiting.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use cloister_wire::control::{FromInit, MAX_LINE_BYTES, ToInit};
use rustix::event::PollFlags;

/// Most bytes that wait to be read by the data plane; what it does not read is not worth more.
const MAX_WAITING_BYTES: usize = 1 << 20;

/// Init's end.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Channel {
    /// A channel and the other end, for the data plane.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (stream, other) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let channel = Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
        };
        Ok((channel, other.into()))
    }

    /// What to poll, and for what.
    pub fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let mut flags = PollFlags::IN;
        if !self.output.is_empty() {
            flags |= PollFlags::OUT;
        }
        (self.stream.as_fd(), flags)
    }

    /// Says `message`, or as much of it as there is room for; the rest goes with [`Self::flush`].
    pub fn say(&mut self, message: &FromInit) {
        let Ok(mut line) = serde_json::to_vec(message) else {
            return;
        };
        line.push(b'\n');
        if self.output.len().saturating_add(line.len()) <= MAX_WAITING_BYTES {
            self.output.extend(line);
        }
        self.flush();
    }

    /// Sends what waits, as far as there is room.
    pub fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written @ 1..) => drop(self.output.drain(..written)),
                _ => return,
            }
        }
    }

    /// The messages that arrived whole.
    ///
    /// # Errors
    ///
    /// The other end closed, sent a line longer than [`MAX_LINE_BYTES`], or one that is no message.
    pub fn messages(&mut self) -> io::Result<Vec<ToInit>> {
        let mut messages = Vec::new();
        let mut bytes = [0; 8192];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) if messages.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => return Ok(messages),
                Ok(length) => self.input.extend(bytes.iter().take(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(messages),
                Err(error) => return Err(error),
            }
            while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                messages.push(serde_json::from_slice(&line)?);
            }
            if self.input.len() > MAX_LINE_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cross_whole() {
        let (mut channel, other) = Channel::pair().unwrap();
        let mut other = UnixStream::from(other);
        other
            .write_all(b"{\"type\":\"drained\"}\n{\"type\":")
            .unwrap();
        assert_eq!(channel.messages().unwrap(), [ToInit::Drained]);
        other
            .write_all(b"\"signal_process\",\"signal\":1}\n")
            .unwrap();
        assert_eq!(
            channel.messages().unwrap(),
            [ToInit::SignalProcess { signal: 1 }]
        );
        channel.say(&FromInit::Drain);
        let mut line = [0; 17];
        other.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"{\"type\":\"drain\"}\n");
    }

    #[test]
    fn nonsense_and_silence_are_told_apart() {
        let (mut channel, other) = Channel::pair().unwrap();
        let mut other = UnixStream::from(other);
        assert_eq!(channel.messages().unwrap(), []);
        other.write_all(b"nonsense\n").unwrap();
        channel.messages().unwrap_err();
        drop(other);
        channel.messages().unwrap_err();
    }
}
