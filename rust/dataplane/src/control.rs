//! The channel to init: one JSON object a line over a socket pair (`cloister_wire::control`).
//!
//! init is PID 1 and starts, signals and restarts the user process; the data plane knows when. Both
//! ends are measured code; lines are bounded all the same. Outside of an enclave there is none.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream as StdStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_wire::control::{FromInit, MAX_LINE_BYTES, ToInit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zeroize::Zeroize;

use crate::provision::Variables;
use crate::wiped;

/// Hears from init.
pub struct FromInitReader {
    lines: BufReader<OwnedReadHalf>,
}

/// Tells init.
pub struct ToInitWriter {
    stream: OwnedWriteHalf,
}

/// Takes the data plane's end of the channel into the current runtime.
///
/// # Errors
///
/// The system's, when the descriptor cannot be registered.
pub fn open(stream: StdStream) -> io::Result<(FromInitReader, ToInitWriter)> {
    stream.set_nonblocking(true)?;
    let (read, write) = UnixStream::from_std(stream)?.into_split();
    let reader = FromInitReader {
        lines: BufReader::new(read),
    };
    Ok((reader, ToInitWriter { stream: write }))
}

impl FromInitReader {
    /// The next message; `None` when init is gone.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] for a line that is too long or no message, or the system's.
    pub async fn next(&mut self) -> io::Result<Option<FromInit>> {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let mut bounded = (&mut self.lines).take(limit);
        bounded.read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            return Err(invalid("the line is cut off or too long"));
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|_| invalid("the line is not a message"))
    }
}

impl ToInitWriter {
    /// Sends a message.
    ///
    /// # Errors
    ///
    /// The system's; [`io::ErrorKind::InvalidData`] for a message over the line limit.
    pub async fn send(&mut self, message: &mut ToInit) -> io::Result<()> {
        let line = wiped::to_json(message);
        if let ToInit::StartProcess { env } | ToInit::RestartProcess { env } = message {
            for (_, value) in env {
                value.zeroize();
            }
        }
        let line = line.map_err(|_| invalid("the message has no JSON form"))?;
        if line.len() >= MAX_LINE_BYTES {
            return Err(invalid("the message is too long"));
        }
        self.stream.write_all(&line).await?;
        self.stream.write_all(b"\n").await
    }
}

/// Variables as they cross: values in base64, because they are bytes.
pub fn encoded(variables: &Variables) -> Vec<(String, String)> {
    variables
        .iter()
        .map(|(name, value)| (name.to_owned(), STANDARD.encode(value)))
        .collect()
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

impl fmt::Debug for FromInitReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FromInitReader")
    }
}

impl fmt::Debug for ToInitWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ToInitWriter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (FromInitReader, ToInitWriter, UnixStream) {
        let (ours, theirs) = StdStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (reader, writer) = open(ours).unwrap();
        (reader, writer, UnixStream::from_std(theirs).unwrap())
    }

    #[tokio::test]
    async fn messages_cross_in_both_directions() {
        let (mut reader, mut writer, mut init) = pair();
        let env = vec![("A".to_owned(), "AQI=".to_owned())];
        writer
            .send(&mut ToInit::StartProcess { env })
            .await
            .unwrap();
        let mut line = vec![0; 128];
        let length = init.read(&mut line).await.unwrap();
        assert_eq!(
            &line[..length],
            b"{\"type\":\"start_process\",\"env\":[[\"A\",\"AQI=\"]]}\n"
        );

        init.write_all(b"{\"type\":\"process_started\",\"pid\":7,\"restarts\":0}\n{\"type\":\"dr")
            .await
            .unwrap();
        let started = reader.next().await.unwrap();
        assert_eq!(
            started,
            Some(FromInit::ProcessStarted {
                pid: 7,
                restarts: 0
            })
        );
        init.write_all(b"ain\"}\n").await.unwrap();
        assert_eq!(reader.next().await.unwrap(), Some(FromInit::Drain));
        drop(init);
        assert_eq!(reader.next().await.unwrap(), None);
    }

    /// A message that lost its end would otherwise be taken for the end of the channel.
    #[tokio::test]
    async fn a_line_that_is_cut_off_is_an_error() {
        let (mut reader, _writer, mut init) = pair();
        init.write_all(b"{\"type\":").await.unwrap();
        drop(init);
        let error = reader.next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
