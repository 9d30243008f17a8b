//! What the shared TLS object holds: a private key, and the certificate chain once there is one.
//!
//! CBOR `{v: 1, key: bytes (PKCS#8), chain: text (PEM, leaf first) or null}`. It was sealed by an
//! enclave of the same image, so it is not hostile; it is read strictly all the same.

use cloister_attestation::cbor::{CborError, Reader, Writer};
use zeroize::Zeroizing;

use crate::certificate::CertificateError;
use crate::certificate::key::TlsKey;

/// The content of one version. The bytes are wiped when dropped.
pub(super) struct Content {
    bytes: Zeroizing<Vec<u8>>,
    pkcs8: Zeroizing<Vec<u8>>,
    chain: Option<String>,
}

impl Content {
    /// A key that was made here, and its chain.
    pub(super) fn new(key: &TlsKey, chain: Option<String>) -> Result<Self, CertificateError> {
        let pkcs8 = key
            .to_pkcs8()
            .ok_or_else(|| CertificateError::Make("the key was given, not made here".to_owned()))?;
        // Room for everything: a buffer that grows would leave the key behind.
        let room = pkcs8
            .len()
            .saturating_add(chain.as_ref().map_or(0, String::len))
            .saturating_add(OVERHEAD_BYTES);
        let mut out = Writer::with_capacity(room);
        out.map(3).text("v").unsigned(VERSION);
        out.text("key").bytes(&pkcs8).text("chain");
        match &chain {
            Some(chain) => out.text(chain),
            None => out.null(),
        };
        Ok(Self {
            bytes: Zeroizing::new(out.into_bytes()),
            pkcs8,
            chain,
        })
    }

    /// Reads what was sealed; `None` when it has another form.
    pub(super) fn read(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        let (pkcs8, chain) = parse(&bytes).ok()?;
        Some(Self {
            bytes,
            pkcs8,
            chain,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn chain(&self) -> Option<&str> {
        self.chain.as_deref()
    }

    pub(super) fn key(&self) -> Result<TlsKey, CertificateError> {
        TlsKey::from_pkcs8(&self.pkcs8)
    }
}

fn parse(bytes: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Option<String>), CborError> {
    let mut input = Reader::new(bytes);
    let mut pairs = input.map(3)?;
    let mut next = |input: &mut Reader<'_>, name: &str| {
        if !input.has_next(&mut pairs)? || input.text(MAX_NAME_BYTES)? != name {
            return Err(CborError("has another key than expected"));
        }
        Ok(())
    };
    next(&mut input, "v")?;
    if input.unsigned()? != VERSION {
        return Err(CborError("has another version"));
    }
    next(&mut input, "key")?;
    let pkcs8 = Zeroizing::new(input.bytes(bytes.len())?.to_vec());
    next(&mut input, "chain")?;
    let chain = if input.is_text() {
        Some(input.text(bytes.len())?.to_owned())
    } else {
        let none = input.bytes_or_null(0)?;
        if none.is_some() {
            return Err(CborError("has a chain that is not text"));
        }
        None
    };
    input.finish()?;
    Ok((pkcs8, chain))
}

const VERSION: u64 = 1;
const MAX_NAME_BYTES: usize = 8;
/// More than what stands around key and chain.
const OVERHEAD_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_with_and_without_a_chain() {
        let key = TlsKey::generate().unwrap();
        for chain in [None, Some("-----BEGIN".to_owned())] {
            let made = Content::new(&key, chain.clone()).unwrap();
            let read = Content::read(Zeroizing::new(made.bytes().to_vec())).unwrap();
            assert_eq!(read.chain(), chain.as_deref());
            assert_eq!(read.key().unwrap().spki(), key.spki());
        }
    }

    #[test]
    fn what_has_another_form_is_not_read() {
        let made = Content::new(&TlsKey::generate().unwrap(), None).unwrap();
        let good = made.bytes().to_vec();
        assert!(Content::read(Zeroizing::new(good.clone())).is_some());
        let mut longer = good.clone();
        longer.push(0);
        let shorter = good[..good.len() - 1].to_vec();
        let mut later = good;
        // a3 61 76 01: the map, `v`, its value.
        later[3] = 2;
        for bad in [longer, shorter, later, Vec::new()] {
            assert!(Content::read(Zeroizing::new(bad)).is_none());
        }
    }
}
