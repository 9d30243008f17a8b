//! One boot, as the platform knows it: a key, a challenge, and the documents and bundles of both.

use cloister_attestation::decode_unverified;
use cloister_nsm::DocumentRequest;
use cloister_sealing::object::ImageRegisters;
use cloister_sealing::{BootKey, Bundle, Expected, PROVISION_USER_DATA, open_bundle};
use uuid::Uuid;

use super::ProvisionError;
use super::entropy::SystemRandom;
use crate::agent::AgentApi;
use crate::clock::Clock;
use crate::nsm_thread::NsmThread;

/// A proof of this boot, and what bundles must match. The key dies with it.
pub(super) struct Session {
    boot_key: BootKey,
    challenge: [u8; 32],
    /// PCR0, PCR1 and PCR2.
    image: ImageRegisters,
    document: Vec<u8>,
    version: u64,
    end_ms: u64,
}

impl Session {
    /// Makes a key, asks for a challenge and has the NSM bind both.
    pub(super) async fn begin(
        agent: &dyn AgentApi,
        nsm: &NsmThread,
        clock: &dyn Clock,
    ) -> Result<Self, ProvisionError> {
        let boot_key =
            BootKey::generate(&mut SystemRandom::new()).map_err(ProvisionError::BootKey)?;
        let challenge = agent.challenge().await?;
        let request = DocumentRequest {
            user_data: Some(PROVISION_USER_DATA.to_vec()),
            nonce: Some(challenge.to_vec()),
            public_key: Some(boot_key.public().to_vec()),
        };
        let (document, registers) = nsm
            .call(move |nsm| {
                let image = [
                    nsm.describe_pcr(0)?,
                    nsm.describe_pcr(1)?,
                    nsm.describe_pcr(2)?,
                ];
                Ok((nsm.attestation_document(&request)?, image))
            })
            .await?;
        // Our own NSM made it just now: the floor of our clock.
        if let Ok(decoded) = decode_unverified(&document) {
            clock.observe(decoded.timestamp.0);
        }
        let mut image = [[0; 48]; 3];
        for ((index, to), from) in (0..).zip(&mut image).zip(registers) {
            let length = from.value.len();
            *to = from
                .value
                .try_into()
                .map_err(|_| ProvisionError::Pcr { index, length })?;
        }
        Ok(Self {
            boot_key,
            challenge,
            image,
            document,
            version: 0,
            end_ms: 0,
        })
    }

    /// The document that asks for the first bundle. It is asked for once.
    pub(super) fn take_document(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.document)
    }

    /// Opens a sealed bundle, or says why it is not for this boot at this time.
    pub(super) fn open(
        &self,
        sealed: &[u8],
        service_keys: &[[u8; 32]],
        enclave: Uuid,
        minimum_version: u64,
        now_ms: u64,
    ) -> Result<Bundle, ProvisionError> {
        let expected = Expected {
            service_keys,
            enclave,
            challenge: &self.challenge,
            pcr0: &self.image[0],
            minimum_version,
            now_ms,
        };
        let bundle = open_bundle(sealed, &self.boot_key, &expected)?;
        // A host could hand out an earlier issue of the version in use: it was good once.
        if bundle.version == self.version && bundle.not_after <= self.end_ms {
            return Err(ProvisionError::Stale);
        }
        Ok(bundle)
    }

    /// Takes note of the bundle in use: its version, and its end.
    pub(super) fn renewed(&mut self, version: u64, end_ms: u64) {
        self.version = version;
        self.end_ms = end_ms;
    }

    /// The registers that say which image this is.
    pub(super) fn image(&self) -> &ImageRegisters {
        &self.image
    }

    /// Version in use.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// End of the bundle in use, milliseconds since the Unix epoch.
    pub(super) fn end_ms(&self) -> u64 {
        self.end_ms
    }
}
