//! What moves bytes on the host side: the relay, and the Rust half of the agent API with the log
//! intake.
//!
//! The host is not trusted by the enclave and holds nothing that would need it to be: no plaintext,
//! no key. In turn the enclave is a stranger here: every head, body, line and wait is bounded, and a
//! frame that cannot be understood ends its own stream only.
//!
//! Each server runs on threads of its own and knows no interpreter; `cloister-native` starts, stops
//! and observes it. Wire formats: `docs/spec`, and `cloister_wire`.

pub mod agent;
pub mod relay;
pub mod request;

pub use agent::{AgentOptions, AgentServer, AgentStats};
pub use relay::{Relay, RelayOptions, RelayStats};
pub use request::{Response, request};
