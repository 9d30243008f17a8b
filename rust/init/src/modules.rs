//! Loads the kernel modules that lie in the boot ramdisk, for kernels that have vsock and the NSM as
//! modules (Debian's cloud kernel). Kernels of our own have them built in and no such folder.

use std::fs::File;
use std::path::Path;

use crate::error::{Doing, InitError};

/// Where they lie.
pub const FOLDER: &str = "/modules";
/// The order in which they need each other.
pub const ORDER: [&str; 5] = [
    "virtio_mmio",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
    "nsm",
];

/// Loads what is there; returns how many that was.
///
/// # Errors
///
/// The kernel refused one: without it the enclave could not be reached.
pub fn load() -> Result<usize, InitError> {
    let mut loaded = 0_usize;
    for name in ORDER {
        let path = Path::new(FOLDER).join(name).with_extension("ko");
        let Ok(file) = File::open(&path) else {
            continue;
        };
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).doing(&format!("cannot load module `{name}`")),
        }
        loaded = loaded.saturating_add(1);
    }
    Ok(loaded)
}
