//! Capabilities: what is left of root for each of our processes.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// The user process: what Docker gives by default, less `NET_RAW` (no packet sockets on a link that
/// we own) and `MKNOD` (no device nodes).
pub const USER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// The data plane: low ports on loopback (DNS).
pub const DATA_PLANE: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// The reaper: it signals processes of other users and does nothing else.
pub const REAPER: CapabilitySet = CapabilitySet::KILL;

/// Numbers tried, above the last one any kernel has (`CAP_CHECKPOINT_RESTORE`, 40).
const NUMBERS: std::ops::Range<u32> = 0..64;

/// Drops everything but `kept` from the bounding, permitted and effective sets, empties the
/// inheritable and ambient ones, and forbids new privileges.
///
/// # Errors
///
/// What the system says.
pub fn keep_only(kept: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    bound(kept)?;
    take(kept)
}

/// Drops everything but `kept` from the bounding set: no later `execve` brings more.
///
/// # Errors
///
/// What the system says.
pub fn bound(kept: CapabilitySet) -> io::Result<()> {
    clear_ambient_capability_set()?;
    for number in NUMBERS {
        let Some(one) = 1_u64
            .checked_shl(number)
            .map(CapabilitySet::from_bits_retain)
        else {
            continue;
        };
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            // A number that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Drops everything but `kept` from what this process has now.
///
/// # Errors
///
/// What the system says.
pub fn take(kept: CapabilitySet) -> io::Result<()> {
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The twelve of the design, and none of those that undo the confinement.
    #[test]
    fn the_user_process_has_no_way_up() {
        assert_eq!(USER.bits().count_ones(), 12);
        let forbidden = CapabilitySet::SYS_ADMIN
            | CapabilitySet::SYS_PTRACE
            | CapabilitySet::SYS_MODULE
            | CapabilitySet::SYS_RESOURCE
            | CapabilitySet::NET_ADMIN
            | CapabilitySet::NET_RAW
            | CapabilitySet::MKNOD;
        assert!(!USER.intersects(forbidden));
    }
}
