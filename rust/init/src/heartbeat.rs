//! The boot heartbeat of Nitro: the hypervisor's host side waits for it before it calls an enclave
//! started.
//!
//! One byte, `0xB7`, to CID 3 port 9000, and the same byte back
//! (aws-nitro-enclaves-sdk-bootstrap, `init/init.c`).

use std::io::{Read, Write};
use std::time::Duration;

use crate::error::{Doing, InitError};

/// The byte.
pub const BYTE: u8 = 0xb7;
/// Longest wait for the answer.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Something that connects to the parent instance.
pub trait Parent {
    /// A connected stream.
    type Stream: Read + Write;

    /// Connects to `port` of the parent instance; reads and writes end after `deadline`.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn connect(&self, port: u32, deadline: Duration) -> std::io::Result<Self::Stream>;
}

/// Beats once.
///
/// # Errors
///
/// No connection, no answer, or another answer.
pub fn beat(parent: &impl Parent) -> Result<(), InitError> {
    let port = cloister_wire::ports::HEARTBEAT;
    let mut stream = parent
        .connect(port, DEADLINE)
        .doing("heartbeat: cannot connect")?;
    stream.write_all(&[BYTE]).doing("heartbeat: cannot write")?;
    let mut answer = [0];
    stream
        .read_exact(&mut answer)
        .doing("heartbeat: no answer")?;
    if answer == [BYTE] {
        Ok(())
    } else {
        Err(InitError::new(format!(
            "heartbeat: answered {:#04x}",
            answer[0]
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// A parent that answers with a byte of its choice and remembers what it was told.
    struct Fake(std::cell::RefCell<Option<UnixStream>>);

    impl Parent for Fake {
        type Stream = UnixStream;

        fn connect(&self, port: u32, _: Duration) -> std::io::Result<UnixStream> {
            assert_eq!(port, 9000);
            self.0
                .take()
                .ok_or_else(|| std::io::ErrorKind::ConnectionRefused.into())
        }
    }

    fn answered(answer: &[u8]) -> (Result<(), InitError>, Vec<u8>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(answer).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let result = beat(&Fake(Some(ours).into()));
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).unwrap();
        (result, heard)
    }

    #[test]
    fn the_byte_goes_out_and_comes_back() {
        assert_eq!(answered(&[BYTE]), (Ok(()), vec![BYTE]));
    }

    #[test]
    fn another_answer_none_or_no_parent_is_an_error() {
        assert!(answered(&[0]).0.is_err());
        assert!(answered(&[]).0.is_err());
        assert!(beat(&Fake(None.into())).is_err());
    }
}
