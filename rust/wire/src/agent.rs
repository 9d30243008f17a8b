//! Bodies of the agent API (host, vsock port 7776): HTTP/1.1 and JSON.
//!
//! Binary values are standard base64 with padding. Unknown keys are ignored, so that a newer peer
//! can add one. Nothing here is believed because of where it came from.

use serde::{Deserialize, Serialize};

/// Largest body either side reads, in bytes.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// How long the host holds `GET /v1/bundle` open, in milliseconds.
pub const BUNDLE_POLL_MS: u64 = 25_000;
/// Version of this protocol (`x-cloister-version` on every request and response).
pub const VERSION: u32 = 1;
/// Header that names [`VERSION`], on every request and response.
pub const VERSION_HEADER: &str = "x-cloister-version";
/// Header of `POST /v1/logs`: sequence number of the batch's last record.
pub const BATCH_SEQUENCE_HEADER: &str = "x-batch-sequence";
/// Header of `POST /v1/logs`, required: 32 hexadecimal digits, drawn by the data plane each time it
/// starts. Sequence numbers start again with it, so the host drops duplicates within one boot only.
pub const BOOT_HEADER: &str = "x-cloister-boot";
/// Header that the host's Rust side sets for its Python side: uuid of the enclave that asks, known
/// from where the stream came from. One that a peer sends is dropped.
pub const ENCLAVE_HEADER: &str = "x-cloister-enclave";

/// Answer of `POST /v1/challenge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// 32 random bytes of the platform, base64; used once, valid 60 s.
    pub challenge: String,
}

/// Body of `POST /v1/provision`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provision {
    /// `COSE_Sign1` attestation document, base64.
    pub attestation_doc: String,
}

/// Answer of `POST /v1/provision` and `GET /v1/bundle?after=N`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedBundle {
    /// Sealed bundle, base64.
    pub bundle: String,
}

/// Body of `POST /v1/acme/orders`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// PKCS#10 certificate signing request, DER, base64.
    pub csr: String,
    /// DNS names the certificate is for; empty in local runs without a domain.
    pub domains: Vec<String>,
}

/// Answer (202) of `POST /v1/acme/orders`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderAccepted {
    /// Name of the order, for `GET /v1/acme/orders/{id}`.
    pub id: String,
}

/// Answer of `GET /v1/acme/orders/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum OrderState {
    /// The order failed.
    Invalid {
        /// RFC 7807 problem document, as text.
        problem: String,
    },
    /// Not there yet; ask again.
    Pending,
    /// The certificate is there.
    Valid {
        /// PEM, leaf first.
        certificate_chain: String,
    },
}

/// Body of `POST /v1/objects/{name}/head`: what the platform is to record of a sealed object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectHead {
    /// Version the object was sealed as.
    pub version: u64,
    /// SHA-256 of the sealed object, base64.
    pub sha256: String,
    /// Proof that an enclave of the image says so, base64 (wire specification §3).
    pub proof: String,
}

/// Answer of `POST /v1/logs` (request: NDJSON of [`crate::logs::TransactionLog`], headers
/// [`BATCH_SEQUENCE_HEADER`] and [`BOOT_HEADER`]; sequence numbers rise within a batch).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsAcked {
    /// Last sequence number that is on the host's disk.
    pub acked: u64,
}

/// Body of `POST /v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What kind: `state`, `process-exit`, `warning`.
    pub kind: String,
    /// One sentence.
    pub message: String,
}

/// Answer of `GET /v1/time`: a hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Host clock, nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
}
