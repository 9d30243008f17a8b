//! The CBOR that crosses `/dev/nsm`: requests and answers, in both directions.
//!
//! An enum variant is written as serde's externally tagged form: a bare name as text, one with fields
//! as a map of one pair. Maps come in any order; fields that are not known are passed over, so a
//! newer module can say more. Everything is bounded before it is kept.

mod fields;

use cloister_attestation::cbor::{CborError, Reader, Writer};

use self::fields::Values;
use crate::provider::{Description, DocumentRequest, ErrorCode, NsmError, Pcr};

/// What an NSM is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A signed document.
    Attestation(DocumentRequest),
    /// What the module is.
    DescribeNsm,
    /// Value and lock of a PCR.
    DescribePcr {
        /// Which.
        index: u16,
    },
    /// `SHA384(value ‖ data)` becomes the PCR's value.
    ExtendPcr {
        /// Which.
        index: u16,
        /// What it is extended with.
        data: Vec<u8>,
    },
    /// 256 bytes of entropy.
    GetRandom,
    /// Locks a PCR.
    LockPcr {
        /// Which.
        index: u16,
    },
    /// Locks the PCRs from 0 up to, and without, `range`.
    LockPcrs {
        /// The first one that is not locked.
        range: u16,
    },
}

/// What an NSM answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// A signed document.
    Attestation {
        /// The `COSE_Sign1`.
        document: Vec<u8>,
    },
    /// What the module is.
    DescribeNsm(Description),
    /// Value and lock of a PCR.
    DescribePcr(Pcr),
    /// It refused.
    Error(ErrorCode),
    /// The PCR's new value.
    ExtendPcr {
        /// The value.
        data: Vec<u8>,
    },
    /// Entropy.
    GetRandom {
        /// The bytes.
        random: Vec<u8>,
    },
    /// The PCR is locked.
    LockPcr,
    /// The PCRs are locked.
    LockPcrs,
}

impl Request {
    /// Name of the request as it crosses the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Attestation(_) => "Attestation",
            Self::DescribeNsm => "DescribeNSM",
            Self::DescribePcr { .. } => "DescribePCR",
            Self::ExtendPcr { .. } => "ExtendPCR",
            Self::GetRandom => "GetRandom",
            Self::LockPcr { .. } => "LockPCR",
            Self::LockPcrs { .. } => "LockPCRs",
        }
    }

    /// The request as bytes.
    ///
    /// # Errors
    ///
    /// [`NsmError::RequestTooLarge`]: longer than [`MAX_REQUEST_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, NsmError> {
        let mut out = Writer::new();
        match self {
            Self::DescribeNsm | Self::GetRandom => {
                out.text(self.name());
            }
            Self::Attestation(request) => {
                out.map(1).text(self.name()).map(3);
                out.text("user_data")
                    .bytes_or_null(request.user_data.as_deref());
                out.text("nonce").bytes_or_null(request.nonce.as_deref());
                out.text("public_key")
                    .bytes_or_null(request.public_key.as_deref());
            }
            Self::DescribePcr { index } | Self::LockPcr { index } => {
                out.map(1)
                    .text(self.name())
                    .map(1)
                    .text("index")
                    .unsigned(u64::from(*index));
            }
            Self::ExtendPcr { index, data } => {
                out.map(1).text(self.name()).map(2);
                out.text("index")
                    .unsigned(u64::from(*index))
                    .text("data")
                    .bytes(data);
            }
            Self::LockPcrs { range } => {
                out.map(1)
                    .text(self.name())
                    .map(1)
                    .text("range")
                    .unsigned(u64::from(*range));
            }
        }
        let bytes = out.into_bytes();
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(NsmError::RequestTooLarge {
                length: bytes.len(),
                limit: MAX_REQUEST_BYTES,
            });
        }
        Ok(bytes)
    }

    /// Reads a request, as an NSM does.
    ///
    /// # Errors
    ///
    /// The code that the module answers: [`ErrorCode::InputTooLarge`] for more than
    /// [`MAX_REQUEST_BYTES`], [`ErrorCode::InvalidOperation`] for what is not a request.
    pub fn decode(bytes: &[u8]) -> Result<Self, ErrorCode> {
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(ErrorCode::InputTooLarge);
        }
        let mut reader = Reader::new(bytes);
        let request = read_request(&mut reader).map_err(|_| ErrorCode::InvalidOperation)?;
        reader.finish().map_err(|_| ErrorCode::InvalidOperation)?;
        Ok(request)
    }
}

impl Response {
    /// The answer as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Attestation { document } => {
                out.map(1)
                    .text("Attestation")
                    .map(1)
                    .text("document")
                    .bytes(document);
            }
            Self::DescribeNsm(description) => write_description(&mut out, description),
            Self::DescribePcr(pcr) => {
                out.map(1).text("DescribePCR").map(2);
                out.text("lock")
                    .boolean(pcr.is_locked)
                    .text("data")
                    .bytes(&pcr.value);
            }
            Self::Error(code) => {
                out.map(1).text("Error").text(code.name());
            }
            Self::ExtendPcr { data } => {
                out.map(1).text("ExtendPCR").map(1).text("data").bytes(data);
            }
            Self::GetRandom { random } => {
                out.map(1)
                    .text("GetRandom")
                    .map(1)
                    .text("random")
                    .bytes(random);
            }
            Self::LockPcr => {
                out.text("LockPCR");
            }
            Self::LockPcrs => {
                out.text("LockPCRs");
            }
        }
        out.into_bytes()
    }

    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// [`NsmError::Protocol`]: it is not one, or a field breaks a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, NsmError> {
        let wrong = |problem: CborError| NsmError::Protocol { problem: problem.0 };
        if bytes.len() > MAX_RESPONSE_BYTES {
            return Err(NsmError::Protocol {
                problem: "is longer than 12 KiB",
            });
        }
        let mut reader = Reader::new(bytes);
        let response = read_response(&mut reader).map_err(wrong)?;
        reader.finish().map_err(wrong)?;
        Ok(response)
    }
}

fn write_description(out: &mut Writer, description: &Description) {
    let (major, minor, patch) = description.version;
    out.map(1).text("DescribeNSM").map(7);
    out.text("version_major").unsigned(u64::from(major));
    out.text("version_minor").unsigned(u64::from(minor));
    out.text("version_patch").unsigned(u64::from(patch));
    out.text("module_id").text(&description.module_id);
    out.text("max_pcrs")
        .unsigned(u64::from(description.max_pcrs));
    out.text("locked_pcrs");
    out.array(u64::try_from(description.locked_pcrs.len()).unwrap_or(u64::MAX));
    for index in &description.locked_pcrs {
        out.unsigned(u64::from(*index));
    }
    out.text("digest").text(&description.digest);
}

fn read_request(reader: &mut Reader<'_>) -> Result<Request, CborError> {
    if reader.is_text() {
        return match reader.text(MAX_NAME_BYTES)? {
            "DescribeNSM" => Ok(Request::DescribeNsm),
            "GetRandom" => Ok(Request::GetRandom),
            _ => Err(UNKNOWN),
        };
    }
    in_variant(reader, |name, reader| {
        let mut fields = Values::default();
        fields.read(reader)?;
        Ok(match name {
            "Attestation" => Request::Attestation(DocumentRequest {
                user_data: fields.user_data,
                nonce: fields.nonce,
                public_key: fields.public_key,
            }),
            "DescribePCR" => Request::DescribePcr {
                index: fields.index.ok_or(MISSING)?,
            },
            "ExtendPCR" => Request::ExtendPcr {
                index: fields.index.ok_or(MISSING)?,
                data: fields.data.ok_or(MISSING)?,
            },
            "LockPCR" => Request::LockPcr {
                index: fields.index.ok_or(MISSING)?,
            },
            "LockPCRs" => Request::LockPcrs {
                range: fields.range.ok_or(MISSING)?,
            },
            _ => return Err(UNKNOWN),
        })
    })
}

fn read_response(reader: &mut Reader<'_>) -> Result<Response, CborError> {
    if reader.is_text() {
        return match reader.text(MAX_NAME_BYTES)? {
            "LockPCR" => Ok(Response::LockPcr),
            "LockPCRs" => Ok(Response::LockPcrs),
            _ => Err(UNKNOWN),
        };
    }
    in_variant(reader, |name, reader| {
        if name == "Error" {
            let code = ErrorCode::from_name(reader.text(MAX_NAME_BYTES)?);
            return code
                .map(Response::Error)
                .ok_or(CborError("has an unknown error code"));
        }
        let mut fields = Values::default();
        fields.read(reader)?;
        Ok(match name {
            "Attestation" => Response::Attestation {
                document: fields.document.ok_or(MISSING)?,
            },
            "DescribeNSM" => Response::DescribeNsm(fields.into_description()?),
            "DescribePCR" => Response::DescribePcr(Pcr {
                is_locked: fields.lock.ok_or(MISSING)?,
                value: fields.data.ok_or(MISSING)?,
            }),
            "ExtendPCR" => Response::ExtendPcr {
                data: fields.data.ok_or(MISSING)?,
            },
            "GetRandom" => Response::GetRandom {
                random: fields.random.ok_or(MISSING)?,
            },
            _ => return Err(UNKNOWN),
        })
    })
}

/// Reads `{name: …}` and hands what stands under the name to `read`.
fn in_variant<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&'a str, &mut Reader<'a>) -> Result<T, CborError>,
) -> Result<T, CborError> {
    let mut pairs = reader.map(1)?;
    if !reader.has_next(&mut pairs)? {
        return Err(UNKNOWN);
    }
    let name = reader.text(MAX_NAME_BYTES)?;
    let value = read(name, reader)?;
    if reader.has_next(&mut pairs)? {
        return Err(CborError("has more than one variant"));
    }
    Ok(value)
}

const UNKNOWN: CborError = CborError("is of an unknown kind");
const MISSING: CborError = CborError("lacks a field");

/// Longest request in bytes (`NSM_REQUEST_MAX_SIZE` in nsm-api, `src/driver/mod.rs`).
pub const MAX_REQUEST_BYTES: usize = 0x1000;
/// Longest answer in bytes (`NSM_RESPONSE_MAX_SIZE`, same file).
pub const MAX_RESPONSE_BYTES: usize = 0x3000;
/// Bytes of entropy in one answer.
pub const RANDOM_BYTES: usize = 256;
/// Longest `user_data` and `nonce` that an NSM takes, in bytes ([NSM-AP] §3.2.2.2).
///
/// [NSM-AP]: https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md
pub const MAX_USER_DATA_BYTES: usize = 512;
/// Longest `public_key` that an NSM takes, in bytes (same place).
pub const MAX_PUBLIC_KEY_BYTES: usize = 1024;

const MAX_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests;
