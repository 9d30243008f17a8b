//! The simulated module: bytes of the NSM protocol in, bytes out, no I/O.

use std::sync::Arc;

use cloister_attestation::UnixMillis;
use cloister_attestation::document::MAX_MODULE_ID_BYTES;
use cloister_nsm::protocol::{
    MAX_PUBLIC_KEY_BYTES, MAX_RESPONSE_BYTES, MAX_USER_DATA_BYTES, RANDOM_BYTES, Request, Response,
};
use cloister_nsm::{Description, DocumentRequest, ErrorCode};

use crate::document::{Payload, sign};
use crate::error::SimulatorError;
use crate::issuer::Chain;
use crate::pcr_bank::{PCR_COUNT, PcrBank};
use crate::root::DevelopmentRoot;

/// What a document says that no NSM would sign: see [`Simulator::forge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forged {
    /// Id of the enclave.
    pub module_id: String,
    /// When it says that it was made.
    pub timestamp: UnixMillis,
    /// The registers it shows, and no other.
    pub pcrs: Vec<(u16, [u8; 48])>,
    /// The fields of the caller's choice, of any length.
    pub fields: DocumentRequest,
}

/// The NSM of one simulated enclave.
#[derive(Debug)]
pub struct Simulator {
    module_id: String,
    pcrs: PcrBank,
    chain: Chain,
}

impl Simulator {
    /// The module of an enclave that boots at `now`: `pcrs` have these values and the rest is zero;
    /// PCR 0 to 15 are locked. All-zero values make it a debug enclave.
    ///
    /// # Errors
    ///
    /// In this order:
    /// - [`SimulatorError::ModuleId`]: empty, or longer than 256 bytes;
    /// - [`SimulatorError::PcrIndex`]: an index above 31;
    /// - [`SimulatorError::Crypto`].
    pub fn new(
        root: &DevelopmentRoot,
        pcrs: impl IntoIterator<Item = (u16, [u8; 48])>,
        module_id: impl Into<String>,
        now: UnixMillis,
    ) -> Result<Self, SimulatorError> {
        let module_id = module_id.into();
        if module_id.is_empty() || module_id.len() > MAX_MODULE_ID_BYTES {
            return Err(SimulatorError::ModuleId {
                length: module_id.len(),
            });
        }
        let pcrs = PcrBank::booted(pcrs)?;
        let chain = Chain::issue(Arc::clone(&root.authority), &module_id, now)?;
        Ok(Self {
            module_id,
            pcrs,
            chain,
        })
    }

    /// Answers one request, at most 4 KiB long, at the time `now`. Whatever the request is, there is
    /// an answer, at most 12 KiB long.
    pub fn handle(&mut self, request: &[u8], now: UnixMillis) -> Vec<u8> {
        let answer = Request::decode(request)
            .and_then(|request| self.answer(request, now))
            .unwrap_or_else(Response::Error);
        let encoded = answer.encode();
        if encoded.len() > MAX_RESPONSE_BYTES {
            return Response::Error(ErrorCode::BufferTooSmall).encode();
        }
        encoded
    }

    fn answer(&mut self, request: Request, now: UnixMillis) -> Result<Response, ErrorCode> {
        Ok(match request {
            Request::Attestation(request) => Response::Attestation {
                document: self.document(&request, now)?,
            },
            Request::DescribeNsm => Response::DescribeNsm(self.description()),
            Request::DescribePcr { index } => Response::DescribePcr(self.pcrs.describe(index)?),
            Request::ExtendPcr { index, data } => Response::ExtendPcr {
                data: self.pcrs.extend(index, &data)?,
            },
            Request::GetRandom => {
                let mut random = vec![0; RANDOM_BYTES];
                aws_lc_rs::rand::fill(&mut random).map_err(|_| ErrorCode::InternalError)?;
                Response::GetRandom { random }
            }
            Request::LockPcr { index } => {
                self.pcrs.lock(index)?;
                Response::LockPcr
            }
            Request::LockPcrs { range } => {
                self.pcrs.lock_below(range)?;
                Response::LockPcrs
            }
        })
    }

    fn description(&self) -> Description {
        Description {
            version: (1, 0, 0),
            module_id: self.module_id.clone(),
            max_pcrs: PCR_COUNT,
            locked_pcrs: self.pcrs.locked().map(|(index, _)| index).collect(),
            digest: "SHA384".to_owned(),
        }
    }

    fn document(
        &mut self,
        request: &DocumentRequest,
        now: UnixMillis,
    ) -> Result<Vec<u8>, ErrorCode> {
        let within = |field: &Option<Vec<u8>>, limit| {
            field.as_ref().is_none_or(|bytes| bytes.len() <= limit)
        };
        if !within(&request.user_data, MAX_USER_DATA_BYTES)
            || !within(&request.nonce, MAX_USER_DATA_BYTES)
            || !within(&request.public_key, MAX_PUBLIC_KEY_BYTES)
        {
            return Err(ErrorCode::InputTooLarge);
        }
        let genuine = Forged {
            module_id: self.module_id.clone(),
            timestamp: now,
            pcrs: self
                .pcrs
                .locked()
                .map(|(index, value)| (index, *value))
                .collect(),
            fields: request.clone(),
        };
        self.forge(&genuine, now)
            .map_err(|_| ErrorCode::InternalError)
    }

    /// Signs a document that says `forged`, with the chain of the time `now`: what a verifier must
    /// refuse, or be shown, in a test. The registers of the module do not matter, and no limit of
    /// the NSM holds.
    ///
    /// # Errors
    ///
    /// [`SimulatorError::Crypto`].
    pub fn forge(&mut self, forged: &Forged, now: UnixMillis) -> Result<Vec<u8>, SimulatorError> {
        self.chain.renew(now)?;
        let leaf = self.chain.leaf().ok_or(SimulatorError::Crypto {
            what: "find a key to sign with",
        })?;
        let pcrs: Vec<(u16, &[u8])> = forged
            .pcrs
            .iter()
            .map(|(index, value)| (*index, value.as_slice()))
            .collect();
        let payload = Payload {
            module_id: &forged.module_id,
            timestamp: forged.timestamp,
            pcrs: &pcrs,
            certificate: &leaf.certificate,
            cabundle: &self.chain.bundle(),
            public_key: forged.fields.public_key.as_deref(),
            user_data: forged.fields.user_data.as_deref(),
            nonce: forged.fields.nonce.as_deref(),
        };
        sign(&payload.encode(), &leaf.key)
    }
}
