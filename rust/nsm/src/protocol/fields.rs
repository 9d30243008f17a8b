//! The fields of every message: read by name, each at most once, each within its bounds.

use cloister_attestation::cbor::{CborError, Reader};

use super::{MAX_NAME_BYTES, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MISSING};
use crate::provider::Description;

/// Every field of every message, by name.
#[derive(Default)]
pub(super) struct Values {
    pub(super) data: Option<Vec<u8>>,
    pub(super) digest: Option<String>,
    pub(super) document: Option<Vec<u8>>,
    pub(super) index: Option<u16>,
    pub(super) lock: Option<bool>,
    pub(super) locked_pcrs: Option<Vec<u16>>,
    pub(super) max_pcrs: Option<u16>,
    pub(super) module_id: Option<String>,
    pub(super) nonce: Option<Vec<u8>>,
    pub(super) public_key: Option<Vec<u8>>,
    pub(super) random: Option<Vec<u8>>,
    pub(super) range: Option<u16>,
    pub(super) user_data: Option<Vec<u8>>,
    pub(super) version_major: Option<u16>,
    pub(super) version_minor: Option<u16>,
    pub(super) version_patch: Option<u16>,
}

impl Values {
    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), CborError> {
        let mut pairs = reader.map(MAX_FIELDS)?;
        while reader.has_next(&mut pairs)? {
            match reader.text(MAX_NAME_BYTES)? {
                "data" => once(&mut self.data, bytes(reader)?)?,
                "digest" => once(&mut self.digest, reader.text(MAX_NAME_BYTES)?.to_owned())?,
                "document" => once(&mut self.document, bytes(reader)?)?,
                "index" => once(&mut self.index, short(reader)?)?,
                "lock" => once(&mut self.lock, reader.boolean()?)?,
                "locked_pcrs" => once(&mut self.locked_pcrs, shorts(reader)?)?,
                "max_pcrs" => once(&mut self.max_pcrs, short(reader)?)?,
                "module_id" => once(&mut self.module_id, reader.text(MAX_ID_BYTES)?.to_owned())?,
                "nonce" => optional(&mut self.nonce, reader)?,
                "public_key" => optional(&mut self.public_key, reader)?,
                "random" => once(&mut self.random, bytes(reader)?)?,
                "range" => once(&mut self.range, short(reader)?)?,
                "user_data" => optional(&mut self.user_data, reader)?,
                "version_major" => once(&mut self.version_major, short(reader)?)?,
                "version_minor" => once(&mut self.version_minor, short(reader)?)?,
                "version_patch" => once(&mut self.version_patch, short(reader)?)?,
                _ => reader.skip(MAX_UNKNOWN_DEPTH)?,
            }
        }
        Ok(())
    }

    pub(super) fn into_description(self) -> Result<Description, CborError> {
        Ok(Description {
            version: (
                self.version_major.ok_or(MISSING)?,
                self.version_minor.ok_or(MISSING)?,
                self.version_patch.ok_or(MISSING)?,
            ),
            module_id: self.module_id.ok_or(MISSING)?,
            max_pcrs: self.max_pcrs.ok_or(MISSING)?,
            locked_pcrs: self.locked_pcrs.ok_or(MISSING)?,
            digest: self.digest.ok_or(MISSING)?,
        })
    }
}

fn bytes(reader: &mut Reader<'_>) -> Result<Vec<u8>, CborError> {
    reader.bytes(MAX_RESPONSE_BYTES).map(<[u8]>::to_vec)
}

fn short(reader: &mut Reader<'_>) -> Result<u16, CborError> {
    u16::try_from(reader.unsigned()?).map_err(|_| CborError("has a number above 65535"))
}

fn shorts(reader: &mut Reader<'_>) -> Result<Vec<u16>, CborError> {
    let mut items = reader.array(MAX_PCRS)?;
    let mut values = Vec::new();
    while reader.has_next(&mut items)? {
        values.push(short(reader)?);
    }
    values.sort_unstable();
    Ok(values)
}

fn optional(slot: &mut Option<Vec<u8>>, reader: &mut Reader<'_>) -> Result<(), CborError> {
    match reader.bytes_or_null(MAX_REQUEST_BYTES)? {
        Some(value) => once(slot, value.to_vec()),
        None => Ok(()),
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), CborError> {
    if slot.is_some() {
        return Err(CborError("has one field twice"));
    }
    *slot = Some(value);
    Ok(())
}

const MAX_ID_BYTES: usize = 256;
const MAX_FIELDS: usize = 32;
const MAX_PCRS: usize = 256;
const MAX_UNKNOWN_DEPTH: usize = 4;
