//! Brings `lo` up; both kernels and fresh network namespaces start with it down.

use crate::error::{Doing, InitError};
use crate::sys;

/// Brings `lo` up.
///
/// # Errors
///
/// The system refused.
pub fn up() -> Result<(), InitError> {
    sys::interface_up(*b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0").doing("cannot bring up `lo`")?;
    // As containers have it: a user process without privilege may listen on any port.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    Ok(())
}
