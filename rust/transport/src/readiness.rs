//! Registration of a socket with the current runtime's reactor.

use std::io;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `socket`, which is non-blocking.
///
/// # Panics
///
/// When there is no current runtime with its reactor enabled.
#[expect(
    unsafe_code,
    reason = "the reactor takes descriptors of any owner; that they stay open is promised here"
)]
pub(crate) fn register(socket: Socket, interest: Interest) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: `Socket` owns an open descriptor, closes it only when it is dropped, and always
    // returns the same one; the `AsyncFd` owns the `Socket`, and nothing here replaces it.
    let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
    Ok(registered?)
}
