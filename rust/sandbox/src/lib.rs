//! `cloister-sandbox`: runs an enclave image on any Linux, in namespaces of its own.
//!
//! The launcher is small, static, synchronous and single-threaded. It reads an EIF, measures it as
//! the Nitro hypervisor would, unpacks its ramdisks into a fresh root inside fresh namespaces, and
//! starts the image's own init there as PID 1. The simulated NSM stays outside, with the launcher:
//! what runs inside can ask it, never change it.
//!
//! It does not build images (`cloister.build` does), does not carry bytes between the host and the
//! enclave (`cloister-hostplane` does, over the sockets in `run_dir/v`), and does not confine the
//! user process from the rest of the enclave (`cloister-init` does, the same way on Nitro).
//!
//! The image is hostile until proved otherwise: [`eif`] and [`cpio`] are strict and bounded, and
//! nothing of it touches the file system before the host's is out of reach.

pub mod cgroup;
pub mod cpio;
pub mod eif;
pub mod enclose;
pub mod error;
pub mod idmap;
pub mod measure;
pub mod nsm_server;
pub mod run;
pub mod signature;
pub mod spec;
pub mod supervise;
pub mod sweeper;
mod sys;
pub mod unpack;
