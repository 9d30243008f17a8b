//! The system calls that no safe wrapper covers: clone into namespaces, fork, signal descriptors.
//!
//! The launcher has one thread, so a child of `clone` or `fork` may go on with ordinary code.

#![expect(
    unsafe_code,
    reason = "clone, fork, signalfd and execve have no safe wrapper in rustix"
)]

use std::ffi::{CStr, c_int, c_ulong};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// Takes a descriptor that the caller of this program promised to leave open.
///
/// # Errors
///
/// It is not open.
pub(crate) fn inherited(descriptor: RawFd) -> io::Result<File> {
    // SAFETY: F_SETFD takes no pointer; a descriptor that is not open is reported as an error.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as was just checked, and main calls this once for each number.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// Forks into fresh namespaces. `None` in the child.
///
/// # Errors
///
/// What `clone` says; `EPERM`, `ENOSPC` and `EUSERS` mean that user namespaces are not allowed.
pub(crate) fn clone_into(namespaces: c_int) -> io::Result<Option<Pid>> {
    let flags = c_ulong::try_from(namespaces | libc::SIGCHLD).map_err(io::Error::other)?;
    // SAFETY: without CLONE_VM and a stack of its own the child is a copy, as after fork; there is
    // one thread, so no lock is held by anybody who is not in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    child_or_pid(pid)
}

/// Forks. `None` in the child.
///
/// # Errors
///
/// What `fork` says.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: there is one thread, see the page above.
    child_or_pid(unsafe { libc::fork() }.into())
}

fn child_or_pid(pid: i64) -> io::Result<Option<Pid>> {
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Blocks `signals` and returns a descriptor that reads them, non-blocking.
///
/// # Errors
///
/// What the system says.
pub(crate) fn block_signals(signals: &[c_int]) -> io::Result<File> {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised; the old mask is not asked for.
    let failed =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    if failed < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` is initialised.
    let descriptor =
        unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd just made it.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// Blocks every signal that can be blocked.
pub(crate) fn block_all_signals() {
    let mut set = signal_set(&[]);
    // SAFETY: `set` is a valid signal set.
    unsafe { libc::sigfillset(&raw mut set) };
    // SAFETY: as above.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: it was just initialised.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: the set is initialised; an unknown number is ignored.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

/// The next signal that waits on `signals`, if any.
pub(crate) fn next_signal(mut signals: &File) -> Option<c_int> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    signals.read_exact(&mut info).ok()?;
    // The first field is `ssi_signo`, u32.
    let number = u32::from_ne_bytes(*info.first_chunk()?);
    c_int::try_from(number).ok()
}

/// Marks every descriptor from 3 on to be closed by the next `execve`.
pub(crate) fn close_on_exec_from_3() {
    // SAFETY: no pointer is passed; a kernel without the call (before 5.11) leaves things as they
    // are, and everything that this program opened has the flag anyway.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            c_int::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Becomes `program` with `arguments` and an empty environment. Returns only when that fails.
pub(crate) fn exec(program: &CStr, arguments: &[&CStr]) -> io::Error {
    let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let environment = [std::ptr::null()];
    // SAFETY: all three point to zero-terminated data that lives until the call returns.
    unsafe { libc::execve(program.as_ptr(), pointers.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, without running anything that the parent's copy would run too.
pub(crate) fn leave(code: c_int) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// A pipe, both ends closed by `execve`: read end, write end.
///
/// # Errors
///
/// What the system says.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader.into(), writer.into()))
}

/// Closes every descriptor but `keep`.
pub(crate) fn close_all_but(keep: &OwnedFd) {
    use std::os::fd::AsRawFd;
    let keep = keep.as_raw_fd();
    for (first, last) in [
        (0, keep.saturating_sub(1)),
        (keep.saturating_add(1), c_int::MAX),
    ] {
        if first <= last {
            // SAFETY: no pointer is passed. The objects that own these descriptors are never used
            // again: the caller ends with `_exit`, which runs no destructor.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}
