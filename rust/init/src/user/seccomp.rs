//! The system call filter of the user process.
//!
//! A list of what is refused, over capabilities and namespaces that already refuse most of it: the
//! second lock on the same doors, and the only one on `AF_VSOCK` and `io_uring`. Calls of the 32-bit
//! and x32 tables, and calls younger than this program, do not exist for the process (`ENOSYS`), so
//! that no other number reaches a refused call.
//!
//! What is refused beyond the design's list is what Docker refuses without capabilities
//! (moby `profiles/seccomp/default_linux.go`). Unlike Docker, `ptrace` and its relatives are refused too.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::error::{Doing, InitError};

/// Puts the filter on this process and all its descendants. New privileges must be forbidden already.
///
/// # Errors
///
/// The filter cannot be built (a mistake of ours) or the kernel has no filters.
pub fn apply() -> Result<(), InitError> {
    for program in programs()? {
        seccompiler::apply_filter(&program).doing("cannot install the system call filter")?;
    }
    Ok(())
}

/// Highest call number of x86-64 in Linux 6.18 (`file_setattr`, 469, of
/// `arch/x86/entry/syscalls/syscall_64.tbl`).
const LAST_CALL: u32 = 469;

fn programs() -> Result<[BpfProgram; 2], InitError> {
    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    Ok([
        build(absent_calls(), errno(libc::ENOSYS))?,
        build(refused_calls()?, errno(libc::EPERM))?,
    ])
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn build(rules: Rules, action: SeccompAction) -> Result<BpfProgram, InitError> {
    let mut program = SeccompFilter::new(rules, SeccompAction::Allow, action, TargetArch::x86_64)
        .and_then(BpfProgram::try_from)
        .doing("system call filter")?;
    // It begins with a check of the table that kills (load, compare, return); ours says `ENOSYS`.
    let its_check: Vec<_> = program.iter().take(3).map(|step| step.code).collect();
    if its_check != [LOAD, IF_EQUAL, RETURN] {
        return Err(InitError::new("system call filter: an unknown beginning"));
    }
    program.splice(0..3, prelude());
    Ok(program)
}

/// Runs before the rest: `ENOSYS` for another table than x86-64's, for x32 and for unknown numbers.
fn prelude() -> [sock_filter; 6] {
    // Offsets in `struct seccomp_data`: the number is first, the table second.
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    [
        step(LOAD, 0, 0, 4),
        step(IF_EQUAL, 1, 0, ARCH_X86_64),
        step(RETURN, 0, 0, NO_SUCH_CALL),
        step(LOAD, 0, 0, 0),
        // x32 calls are numbers with bit 30 set, and so above it as well.
        step(IF_ABOVE, 0, 1, LAST_CALL),
        step(RETURN, 0, 0, NO_SUCH_CALL),
    ]
}

/// `BPF_LD | BPF_W | BPF_ABS`.
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const IF_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`.
const IF_ABOVE: u16 = 0x25;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;
/// `AUDIT_ARCH_X86_64` of linux/audit.h.
const ARCH_X86_64: u32 = 0xc000_003e;
/// `SECCOMP_RET_ERRNO | ENOSYS`.
const NO_SUCH_CALL: u32 = 0x0005_0000 | libc::ENOSYS.unsigned_abs();

/// Calls that do not exist for the process: libraries then use what came before.
fn absent_calls() -> Rules {
    [
        // Its flags are in memory, where a filter cannot look; libc falls back to `clone`.
        libc::SYS_clone3,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
    ]
    .into_iter()
    .map(|call| (call, Vec::new()))
    .collect()
}

fn refused_calls() -> Result<Rules, InitError> {
    let mut rules: Rules = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        rules.insert(call, vec![other_family()?]);
    }
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        rules.insert(call, new_namespace()?);
    }
    // TIOCSTI and TIOCLINUX put words into the mouth of whoever reads the terminal.
    let fake_input = [libc::TIOCSTI, libc::TIOCLINUX];
    let fake_input = fake_input.map(|request| rule(vec![argument(1, SeccompCmpOp::Eq, request)]));
    rules.insert(
        libc::SYS_ioctl,
        fake_input.into_iter().collect::<Result<_, _>>()?,
    );
    Ok(rules)
}

/// A socket that is neither local nor IP nor netlink: `AF_VSOCK` above all, and the families that
/// are known for their bugs.
fn other_family() -> Result<SeccompRule, InitError> {
    let known = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    rule(
        known
            .map(|family| argument(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs())))
            .into_iter()
            .collect(),
    )
}

/// A namespace of its own would bring capabilities back.
fn new_namespace() -> Result<Vec<SeccompRule>, InitError> {
    [
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWUTS,
    ]
    .map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        rule(vec![argument(0, SeccompCmpOp::MaskedEq(flag), flag)])
    })
    .into_iter()
    .collect()
}

fn rule(conditions: Vec<Result<SeccompCondition, InitError>>) -> Result<SeccompRule, InitError> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?).doing("filter rule")
}

/// The kernel looks at the lower half of these arguments only, and so does the rule.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, InitError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value).doing("filter condition")
}

/// `quotactl_fd` and the mount calls since 5.2; libc has no names for some.
const MOUNT_SETATTR: i64 = 442;
const OPEN_TREE_ATTR: i64 = 467;
const QUOTACTL_FD: i64 = 443;

const REFUSED: &[i64] = &[
    // Other processes: ours above all, which hold the keys.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // File systems and roots.
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_umount2,
    libc::SYS_setns,
    MOUNT_SETATTR,
    OPEN_TREE_ATTR,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    QUOTACTL_FD,
    libc::SYS_fanotify_init,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_perf_event_open,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_lookup_dcookie,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_nfsservctl,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    // Keys of the kernel are not divided by namespace.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Time: certificates and documents are judged by it.
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    // The host name is ours.
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A wrong jump in the prelude, or a rule that the compiler refuses, shows here; what the filter
    /// does is tried from inside by `tests/security/test_t16_confinement.py`.
    #[test]
    fn the_filters_compile_and_the_prelude_stands_first() {
        let [absent, refused] = programs().unwrap();
        for program in [&absent, &refused] {
            assert_eq!(program[..6], prelude());
            // What follows loads the number again.
            assert_eq!((program[6].code, program[6].k), (LOAD, 0));
        }
        assert!(absent.len() > 6 && refused.len() > REFUSED.len());
        assert!(absent.len() < 4096 && refused.len() < 4096);
    }

    #[test]
    fn the_designs_list_is_refused() {
        let refused = refused_calls().unwrap();
        for call in [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_mount,
            libc::SYS_bpf,
        ] {
            assert_eq!(refused.get(&call), Some(&Vec::new()));
        }
        assert!(absent_calls().contains_key(&libc::SYS_io_uring_setup));
    }
}
