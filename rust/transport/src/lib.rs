//! Byte streams between the parts: TCP, Unix and vsock behind one address, listener and stream, and
//! the pump that joins two of them.
//!
//! This crate moves bytes and knows nothing of what they say. It applies no policy: who may connect
//! and how long anything may take are arguments. What a TCP peer's address is worth is decided by
//! the caller; behind a relay it is the relay's.
//!
//! Streams are made on one runtime and may be moved to another ([`stream::Stream::into_detached`]),
//! because each plane runs one current-thread runtime per worker and nothing is shared between them.

pub mod address;
pub mod connect;
pub mod endpoints;
pub mod listener;
pub mod pump;
mod readiness;
pub mod stream;
mod vsock;

pub use address::{Address, AddressError};
pub use connect::connect;
pub use endpoints::EnclaveEndpoints;
pub use listener::{Accepted, Bound, Listener};
pub use pump::{Copied, End, Limits, Meter, Scratch, copy_both, copy_both_after, join};
pub use stream::{Detached, Stream};
