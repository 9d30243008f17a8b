//! Messages between the planes: ports, attested configuration, PROXY protocol v2, the agent API,
//! transaction logs, and the channel between init and the data plane.
//!
//! This crate holds types and their encodings. It does no I/O, reads no clock and no environment;
//! whoever receives a message decides what it is worth. The host is the attacker of most of these
//! messages, so every decoder here has its limits as named constants.

#![forbid(unsafe_code)]

pub mod agent;
pub mod config;
pub mod control;
pub mod health;
pub mod logs;
pub mod ports;
pub mod process;
pub mod proxy_v2;
