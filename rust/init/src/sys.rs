//! The system calls that no safe wrapper covers. Everything unsafe of this crate is here.
//!
//! Init and the reaper have one thread each, so a child of `clone` or `fork` may go on with ordinary
//! code.

#![expect(
    unsafe_code,
    reason = "clone, signalfd, execve, vsock and a few ioctls have no safe wrapper in rustix"
)]

use std::ffi::{CStr, CString, c_int, c_ulong};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit};

/// No core dump of this process, and no look into it by others of the same user.
pub fn forbid_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Takes a descriptor that the caller of this program promised to leave open.
///
/// # Errors
///
/// It is not open.
pub fn inherited(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes no pointer; a descriptor that is not open is reported as an error.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as was just checked, and nothing else of this process owns it: its number
    // comes from the arguments.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Forks into fresh namespaces; 0 for none. `None` in the child.
///
/// # Errors
///
/// What `clone` says.
pub fn clone_into(namespaces: c_int) -> io::Result<Option<Pid>> {
    let flags = c_ulong::try_from(namespaces | libc::SIGCHLD).map_err(io::Error::other)?;
    // SAFETY: without CLONE_VM and a stack of its own the child is a copy, as after fork; there is
    // one thread, so no lock is held by anybody who is not in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Blocks every signal and returns a descriptor that reads them.
///
/// # Errors
///
/// What the system says.
pub fn block_all_signals(is_blocking: bool) -> io::Result<File> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the whole set.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: it was just initialised.
    let set: libc::sigset_t = unsafe { set.assume_init() };
    // SAFETY: `set` is initialised; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    let mut flags = libc::SFD_CLOEXEC;
    if !is_blocking {
        flags |= libc::SFD_NONBLOCK;
    }
    // SAFETY: `set` is initialised.
    let descriptor = unsafe { libc::signalfd(-1, &raw const set, flags) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd just made it.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// Unblocks every signal and gives each its default meaning, as a program expects it at its start.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is valid for any signal; the two that cannot be set are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: it was just initialised.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
}

/// The next signal of `signals`: waits for it when the descriptor blocks, else `None` when there is
/// none.
pub fn next_signal(mut signals: &File) -> Option<c_int> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    signals.read_exact(&mut info).ok()?;
    // The first field is `ssi_signo`, u32.
    c_int::try_from(u32::from_ne_bytes(*info.first_chunk()?)).ok()
}

/// Sends `signal`, a number from the image or from the data plane, to `pid`.
pub fn kill(pid: Pid, signal: c_int) {
    // SAFETY: no pointer is passed; an unknown signal or a process that is gone is refused.
    unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
}

/// Becomes the program behind `program`. Returns only when that fails.
pub fn exec_descriptor(program: impl AsFd, arguments: &[CString]) -> io::Error {
    let arguments = pointers(arguments);
    let environment = pointers(&[]);
    let fd = program.as_fd().as_raw_fd();
    // SAFETY: all pointers lead to zero-terminated data that lives until the call returns.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd,
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Becomes `program`. Returns only when that fails.
pub fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: all pointers lead to zero-terminated data that lives until the call returns.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let strings = strings.iter().map(|string| string.as_ptr());
    strings.chain(std::iter::once(std::ptr::null())).collect()
}

/// Ends this process at once, without running anything that the parent's copy would run too.
pub fn leave(code: c_int) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Closes the descriptors from `first` on.
pub fn close_from(first: RawFd) {
    // SAFETY: no pointer is passed. Callers are about to `execve` or are a child that owns no object
    // with such a descriptor that it will use again.
    unsafe { libc::syscall(libc::SYS_close_range, first, c_int::MAX, 0) };
}

/// Marks the descriptors from `first` on to be closed by the next `execve`.
pub fn close_on_exec_from(first: RawFd) {
    // SAFETY: no pointer is passed.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            c_int::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Puts `from` at the number `to`, open across `execve`.
///
/// # Errors
///
/// What `dup2` says.
pub fn place(from: impl AsFd, to: RawFd) -> io::Result<()> {
    // SAFETY: `from` is open; whatever was open as `to` is not used by the caller any more.
    if unsafe { libc::dup2(from.as_fd().as_raw_fd(), to) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets the flag UP of a network interface.
///
/// # Errors
///
/// No socket, no such interface, or no permission.
pub fn interface_up(name: [u8; 16]) -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    let flags = c_int::from(i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0));
    let request = libc::ifreq {
        ifr_name: name.map(u8::cast_signed),
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: i16::try_from(flags).unwrap_or(0),
        },
    };
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives until the call returns.
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if failed < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Mixes `seed` into the kernel's generator and credits all of its bits (`RNDADDENTROPY`, random(4)).
///
/// # Errors
///
/// `EPERM` in a user namespace.
pub fn credit_entropy(device: &File, seed: &[u8; crate::entropy::SEED_BYTES]) -> io::Result<()> {
    /// `struct rand_pool_info` of linux/random.h, with its buffer.
    #[repr(C)]
    struct Pool {
        /// In bits.
        entropy_count: c_int,
        /// In bytes.
        buf_size: c_int,
        buf: [u8; crate::entropy::SEED_BYTES],
    }
    const RNDADDENTROPY: c_ulong = 0x4008_5203;
    let bytes = c_int::try_from(seed.len()).map_err(io::Error::other)?;
    let pool = Pool {
        entropy_count: bytes.saturating_mul(8),
        buf_size: bytes,
        buf: *seed,
    };
    // SAFETY: the request reads one `rand_pool_info` and `buf_size` bytes after it, which is `pool`.
    let failed = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const pool) };
    if failed < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The parent instance, over vsock.
#[derive(Debug)]
pub struct VsockParent;

/// A connected vsock stream.
#[derive(Debug)]
pub struct VsockStream(OwnedFd);

impl crate::heartbeat::Parent for VsockParent {
    type Stream = VsockStream;

    fn connect(&self, port: u32, deadline: Duration) -> io::Result<VsockStream> {
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just made.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        for direction in [
            rustix::net::sockopt::Timeout::Recv,
            rustix::net::sockopt::Timeout::Send,
        ] {
            rustix::net::sockopt::set_socket_timeout(&socket, direction, Some(deadline))?;
        }
        // SAFETY: all zeros is a valid `sockaddr_vm`.
        let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        address.svm_family = u16::try_from(libc::AF_VSOCK).map_err(io::Error::other)?;
        address.svm_cid = cloister_wire::ports::PARENT_CID;
        address.svm_port = port;
        let length = u32::try_from(size_of_val(&address)).map_err(io::Error::other)?;
        // SAFETY: `address` is a `sockaddr_vm` of `length` bytes that lives until the call returns.
        let failed = unsafe { libc::connect(fd, (&raw const address).cast(), length) };
        if failed < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(VsockStream(socket))
    }
}

impl Read for VsockStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, bytes)?)
    }
}

impl Write for VsockStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_is_not_open_is_refused() {
        inherited(-1).unwrap_err();
    }

    /// `struct rand_pool_info` is two C integers: `_IOW('R', 0x03, int[2])`.
    #[test]
    fn the_request_number_is_that_of_the_kernels_header() {
        let size = 2_u64
            .checked_mul(u64::try_from(size_of::<c_int>()).unwrap())
            .unwrap();
        assert_eq!(
            0x4008_5203,
            (1 << 30) | (size << 16) | (u64::from(b'R') << 8) | 3
        );
    }
}
