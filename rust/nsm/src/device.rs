//! `/dev/nsm`: the NSM of a real enclave.
//!
//! One ioctl carries a request and brings the answer. The structures are those of the kernel's
//! `include/uapi/linux/nsm.h` (6.8 and newer) and of nsm-api, `src/driver/mod.rs`; what comes of them is
//! that of `drivers/misc/nsm.c`: a longer request is EMSGSIZE, a longer answer is cut to its buffer
//! without a word, and a module that is silent for two minutes is ETIMEDOUT. This cannot run outside an
//! enclave, so it is thin: [`Driver`] is the system call alone, and everything around it is tested
//! over a driver that is not the kernel.

#![expect(unsafe_code, reason = "an ioctl with a structure of our own")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use crate::call::Exchange;
use crate::protocol::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Response};
use crate::provider::{ErrorCode, NsmError};

/// The NSM of this enclave.
#[derive(Debug)]
pub struct Device<D: Driver = Ioctl> {
    driver: D,
}

impl Device {
    /// Opens `/dev/nsm`.
    ///
    /// # Errors
    ///
    /// [`NsmError::Io`]: there is no such device, or it may not be opened.
    pub fn open() -> Result<Self, NsmError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(PATH)
            .map_err(|source| NsmError::Io {
                at: PATH.to_owned(),
                source,
            })?;
        Ok(Self {
            driver: Ioctl { file },
        })
    }
}

impl<D: Driver> Device<D> {
    /// The NSM behind a driver that is not the kernel's.
    pub fn over(driver: D) -> Self {
        Self { driver }
    }
}

/// The system call: a request goes in, the answer's length comes out.
pub trait Driver: Send + Sync {
    /// Sends `request` and writes the answer to the start of `response`.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn message(&self, request: &[u8], response: &mut [u8]) -> io::Result<usize>;
}

impl<D: Driver> Exchange for Device<D> {
    fn exchange(&self, request: &[u8]) -> Result<Vec<u8>, NsmError> {
        if request.len() > MAX_REQUEST_BYTES {
            return Err(NsmError::RequestTooLarge {
                length: request.len(),
                limit: MAX_REQUEST_BYTES,
            });
        }
        // As long as any answer: the driver cuts a longer one to its buffer and says nothing.
        let mut response = vec![0; MAX_RESPONSE_BYTES];
        let length = loop {
            match self.driver.message(request, &mut response) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A driver with a smaller limit than ours; nsm-api says the same of it.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    return Ok(Response::Error(ErrorCode::InputTooLarge).encode());
                }
                Err(source) => {
                    return Err(NsmError::Io {
                        at: PATH.to_owned(),
                        source,
                    });
                }
            }
        };
        if length > response.len() {
            return Err(NsmError::Protocol {
                problem: "is longer than its buffer",
            });
        }
        response.truncate(length);
        Ok(response)
    }
}

/// [`Driver`] on the kernel's ioctl.
#[derive(Debug)]
pub struct Ioctl {
    file: File,
}

impl Driver for Ioctl {
    fn message(&self, request: &[u8], response: &mut [u8]) -> io::Result<usize> {
        let mut message = RawMessage {
            request: RawSlice {
                address: request.as_ptr().addr() as u64,
                length: request.len() as u64,
            },
            response: RawSlice {
                address: response.as_mut_ptr().addr() as u64,
                length: response.len() as u64,
            },
        };
        let _ = (
            request.as_ptr().expose_provenance(),
            response.as_mut_ptr().expose_provenance(),
        );
        // SAFETY: the descriptor is open for as long as `self` lives; `message` is the structure that
        // this request number names, and both of its slices are valid, the second one for writing,
        // until the call returns. The kernel writes no more than the length it was given.
        let status = unsafe {
            libc::ioctl(
                self.file.as_raw_fd(),
                REQUEST_NUMBER,
                std::ptr::from_mut(&mut message),
            )
        };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        usize::try_from(message.response.length)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// `struct nsm_iovec` of the kernel: address and length, both as 64-bit numbers.
#[repr(C)]
#[derive(Debug)]
struct RawSlice {
    address: u64,
    length: u64,
}

/// `struct nsm_raw`: request and response.
#[repr(C)]
#[derive(Debug)]
struct RawMessage {
    request: RawSlice,
    response: RawSlice,
}

const PATH: &str = "/dev/nsm";

/// `_IOWR(0x0A, 0x0, struct nsm_raw)`.
const REQUEST_NUMBER: libc::Ioctl = 0xC020_0A00_u32 as libc::Ioctl;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::protocol::Request;
    use crate::provider::NsmProvider;

    /// An NSM in memory: answers `DescribePCR`, after one interruption.
    struct Memory {
        calls: Mutex<usize>,
        claims: Option<usize>,
    }

    impl Driver for Memory {
        fn message(&self, request: &[u8], response: &mut [u8]) -> io::Result<usize> {
            let mut calls = self.calls.lock().unwrap();
            *calls = calls.saturating_add(1);
            if *calls == 1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            assert_eq!(response.len(), 0x3000);
            assert_eq!(
                Request::decode(request),
                Ok(Request::DescribePcr { index: 4 })
            );
            let pcr = crate::Pcr {
                is_locked: true,
                value: vec![5; 48],
            };
            let answer = Response::DescribePcr(pcr).encode();
            response[..answer.len()].copy_from_slice(&answer);
            Ok(self.claims.unwrap_or(answer.len()))
        }
    }

    /// `include/uapi/linux/nsm.h`: four 64-bit numbers, and the number that follows from the size.
    #[test]
    fn the_structure_is_the_kernels() {
        assert_eq!(size_of::<RawMessage>(), 32);
        assert_eq!(std::mem::offset_of!(RawMessage, response), 16);
        assert_eq!(std::mem::offset_of!(RawSlice, length), 8);
        let (read_write, size, group, number) = (3_u64 << 30, 32_u64 << 16, 0x0A_u64 << 8, 0_u64);
        assert_eq!(read_write | size | group | number, 0xC020_0A00);
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let device = Device::over(Memory {
            calls: Mutex::new(0),
            claims: None,
        });
        assert_eq!(device.describe_pcr(4).unwrap().value, vec![5; 48]);
        assert_eq!(*device.driver.calls.lock().unwrap(), 2);
    }

    #[test]
    fn a_length_beyond_the_buffer_is_refused() {
        let device = Device::over(Memory {
            calls: Mutex::new(1),
            claims: Some(0x3001),
        });
        assert!(matches!(
            device.describe_pcr(4),
            Err(NsmError::Protocol { .. })
        ));
    }

    /// Answers nothing but an error of the system.
    struct Failing(i32);

    impl Driver for Failing {
        fn message(&self, _request: &[u8], _response: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(self.0))
        }
    }

    #[test]
    fn errors_of_the_driver_are_told_apart() {
        let failing = |code| Device::over(Failing(code));
        match failing(libc::EMSGSIZE).describe() {
            Err(NsmError::Refused { code, .. }) => assert_eq!(code, ErrorCode::InputTooLarge),
            other => panic!("{other:?}"),
        }
        for code in [libc::ETIMEDOUT, libc::ENODATA, libc::EFAULT] {
            match failing(code).describe() {
                Err(NsmError::Io { at, source }) => {
                    assert_eq!((at.as_str(), source.raw_os_error()), (PATH, Some(code)));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// What does not fit into the driver's buffer is not sent.
    #[test]
    fn a_request_that_is_too_long_is_not_sent() {
        let device = Device::over(Failing(libc::EIO));
        assert!(matches!(
            device.extend_pcr(16, &[0; MAX_REQUEST_BYTES]),
            Err(NsmError::RequestTooLarge { .. })
        ));
        assert!(matches!(
            device.exchange(&[0; MAX_REQUEST_BYTES + 1]),
            Err(NsmError::RequestTooLarge { .. })
        ));
    }

    /// The real system call on a file that is not an NSM: the kernel's refusal comes back as it is.
    #[test]
    fn a_file_that_is_no_nsm_is_refused_by_the_kernel() {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap();
        let device = Device::over(Ioctl { file });
        match device.describe() {
            Err(NsmError::Io { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(libc::ENOTTY));
            }
            other => panic!("{other:?}"),
        }
    }
}
