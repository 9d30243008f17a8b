//! Transaction logs: one record per request, WebSocket and TCP session.
//!
//! Field names are those of the hosted product, so that what reads its logs reads these.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionLog {
    /// Sequence number within this boot; the host drops duplicates by it.
    pub sequence: u64,
    /// Context id, as in `x-evervault-ctx`: 32 upper-case hexadecimal digits.
    pub txid: String,
    /// Start, milliseconds since the Unix epoch.
    pub ts: u64,
    /// Always `enclave`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `HTTP`, `Websocket` or `TCP`.
    pub request_type: String,
    /// Method; none for TCP.
    pub request_method: Option<String>,
    /// Path, with the query string masked unless the configuration shows it.
    /// None for TCP.
    pub uri: Option<String>,
    /// Client address: the host's word.
    pub remote_ip: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// Request headers, values masked.
    pub request_headers: BTreeMap<String, String>,
    /// Response headers, values masked.
    pub response_headers: BTreeMap<String, String>,
    /// Status code; none for TCP.
    pub response_code: Option<u16>,
    /// `2XX`, `4XX` …; none for TCP.
    pub status_group: Option<String>,
    /// Request `Content-Type`.
    pub content_type: Option<String>,
    /// Response `Content-Type`.
    pub response_content_type: Option<String>,
    /// Duration, milliseconds.
    pub elapsed: f64,
    /// Request bytes after TLS.
    pub bytes_in: u64,
    /// Response bytes before TLS.
    pub bytes_out: u64,
    /// Fields opened.
    pub n_decrypted_fields: u64,
    /// Enclave name.
    pub resource_name: String,
    /// Enclave uuid.
    pub resource_uuid: String,
    /// App uuid.
    pub app_uuid: String,
    /// Team uuid.
    pub team_uuid: String,
    /// Which API key, by id.
    pub api_key_id: Option<String>,
}
