//! The user process: unmodified, confined, supervised.
//!
//! It gets PID, mount and IPC namespaces of its own with the image's root and nothing of ours in it,
//! the capabilities a container has less two, no new privileges, and a system call filter. A small
//! process of ours ([`reaper`]) is PID 1 of its namespace.
//!
//! What is confined and why is architecture.md §3.4 of the design; how each part is tried is in
//! `tests/security/test_t16_confinement.py`.

pub mod capabilities;
pub mod check;
pub mod command;
pub mod environment;
pub mod identity;
pub mod program;
pub mod reaper;
pub mod rootfs;
pub mod seccomp;
pub mod spawn;
