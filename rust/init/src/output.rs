//! What the user process writes to its standard output and error.
//!
//! It goes to the console in a debug enclave, and only when the NSM confirms that it is one: the
//! console is the host's. Otherwise it goes nowhere.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::console;

/// Longest line shown, in bytes; longer ones are cut into pieces.
pub const MAX_LINE_BYTES: usize = 8192;

/// The read end of the pipe, and the line that is not whole yet.
#[derive(Debug)]
pub struct Output {
    pipe: File,
    line: Vec<u8>,
}

impl Output {
    /// A pipe: our end, and the end for the user process.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn pipe() -> std::io::Result<(Self, OwnedFd)> {
        let (reader, writer) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        let output = Self {
            pipe: OwnedFd::from(reader).into(),
            line: Vec::new(),
        };
        Ok((output, writer.into()))
    }

    /// What to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Shows what arrived, one block at most. False at the end.
    pub fn copy(&mut self) -> bool {
        let mut bytes = [0; MAX_LINE_BYTES];
        let length = match self.pipe.read(&mut bytes) {
            Ok(0) => {
                self.show();
                return false;
            }
            Ok(length) => length,
            Err(_) => return true,
        };
        for &byte in bytes.iter().take(length) {
            if byte == b'\n' || self.line.len() >= MAX_LINE_BYTES {
                self.show();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        true
    }

    fn show(&mut self) {
        if !self.line.is_empty() {
            console::say(&format!("process: {}", String::from_utf8_lossy(&self.line)));
            self.line.clear();
        }
    }
}
