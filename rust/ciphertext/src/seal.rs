//! Making tokens: QkTC by default, Tk9D on request.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::additional::Additional;
use crate::curve::Curve;
use crate::kdf;
use crate::keys::{AppPrivateKey, AppPublicKey};
use crate::metadata;
use crate::random::Random;
use crate::token::Token;
use crate::version::{ValueType, Version};

/// How a token is made.
#[derive(Clone, Debug)]
pub struct SealOptions {
    /// [`Version::QkTC`] or [`Version::Tk9D`].
    pub version: Version,
    /// Data role, `^[a-z0-9-]{1,20}$`; QkTC only.
    pub role: Option<String>,
    /// Who encrypts: 9 the enclave, 7 Python.
    pub origin: u8,
    /// When, seconds since the Unix epoch.
    pub unix_seconds: u32,
}

impl SealOptions {
    /// The default version, made by the enclave at `unix_seconds`.
    pub fn enclave(unix_seconds: u32) -> Self {
        let origin = metadata::ORIGIN_ENCLAVE;
        Self {
            version: Version::QkTC,
            role: None,
            origin,
            unix_seconds,
        }
    }
}

/// Why a token was not made.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The AEAD refused: the clear text is too long for it.
    #[error("the clear text is too long to encrypt")]
    Aead,
    /// A number or boolean that is none.
    #[error("the clear text is not of the type it is said to be")]
    Kind,
    /// Not JSON.
    #[error("the document is not JSON at byte {offset}")]
    NotJson {
        /// Where.
        offset: usize,
    },
    /// The source of randomness failed.
    #[error("the source of randomness failed")]
    Random,
    /// A role that is none.
    #[error("a data role is 1 to 20 of a to z, 0 to 9 and hyphen")]
    Role,
    /// Nested deeper than [`crate::MAX_DEPTH`].
    #[error("the document is nested deeper than 128 levels, at byte {offset}")]
    TooDeep {
        /// Where.
        offset: usize,
    },
    /// What would be made is longer than the limit.
    #[error("the encrypted document would be longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// A version that is opened only.
    #[error("version {version} is opened, not written")]
    Version {
        /// Its name.
        version: &'static str,
    },
}

/// Encrypts one value for an app.
///
/// # Errors
///
/// [`SealError::Version`], [`SealError::Role`], [`SealError::Kind`], [`SealError::Random`],
/// [`SealError::Aead`], in this order.
pub fn seal(
    clear: &[u8],
    kind: ValueType,
    key: &AppPublicKey,
    options: &SealOptions,
    random: &mut dyn Random,
) -> Result<String, SealError> {
    Sealer::new(key, options, random)?.seal(clear, kind, random)
}

/// Encrypts several values under one ephemeral key, each with an IV of its own.
///
/// # Errors
///
/// As [`seal`].
pub fn seal_values<T: AsRef<[u8]>>(
    values: &[(ValueType, T)],
    key: &AppPublicKey,
    options: &SealOptions,
    random: &mut dyn Random,
) -> Result<Vec<String>, SealError> {
    let sealer = Sealer::new(key, options, random)?;
    values
        .iter()
        .map(|(kind, clear)| sealer.seal(clear.as_ref(), *kind, random))
        .collect()
}

/// One ephemeral key, for as many values as one document has.
pub(crate) struct Sealer<'o> {
    options: &'o SealOptions,
    app: [u8; 33],
    ephemeral: [u8; 33],
    key: LessSafeKey,
}

impl<'o> Sealer<'o> {
    pub(crate) fn new(
        app: &AppPublicKey,
        options: &'o SealOptions,
        random: &mut dyn Random,
    ) -> Result<Self, SealError> {
        if !matches!(options.version, Version::QkTC | Version::Tk9D) {
            return Err(SealError::Version {
                version: options.version.name(),
            });
        }
        if options
            .role
            .as_deref()
            .is_some_and(|role| !metadata::is_role(role))
        {
            return Err(SealError::Role);
        }
        let ephemeral = AppPrivateKey::generate(random).map_err(|_| SealError::Random)?;
        let shared = ephemeral
            .agree(app.uncompressed())
            .ok_or(SealError::Random)?;
        let point = ephemeral.public().uncompressed();
        let key = kdf::derive(Curve::P256, shared.as_slice(), point);
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| SealError::Aead)?;
        Ok(Self {
            options,
            app: *app.compressed(),
            ephemeral: *ephemeral.public().compressed(),
            key: LessSafeKey::new(key),
        })
    }

    /// Encrypts one value with an IV of its own.
    pub(crate) fn seal(
        &self,
        clear: &[u8],
        kind: ValueType,
        random: &mut dyn Random,
    ) -> Result<String, SealError> {
        if !kind.admits(clear) {
            return Err(SealError::Kind);
        }
        let version = self.options.version;
        let mut buffer = Zeroizing::new(Vec::with_capacity(clear.len().saturating_add(64)));
        if version.has_metadata() {
            let role = self.options.role.as_deref();
            metadata::write(
                &mut buffer,
                role,
                self.options.origin,
                self.options.unix_seconds,
            );
        }
        buffer.extend_from_slice(clear);
        let mut iv = [0; 12];
        random.fill(&mut iv).map_err(|_| SealError::Random)?;
        let shape = Token {
            is_debug: false,
            version,
            kind,
            iv: 0..0,
            key: 0..0,
            data: 0..0,
            length: 0,
        };
        let mut aad = Additional::of_token(&shape, &self.ephemeral);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(iv),
                Aad::from(aad.with(&self.app)),
                buffer.as_mut_slice(),
            )
            .map_err(|_| SealError::Aead)?;
        buffer.extend_from_slice(tag.as_ref());
        let kind = match kind {
            ValueType::Boolean => "boolean:",
            ValueType::Number => "number:",
            ValueType::String => "",
        };
        let (iv, key) = (
            STANDARD_NO_PAD.encode(iv),
            STANDARD_NO_PAD.encode(self.ephemeral),
        );
        let data = STANDARD_NO_PAD.encode(buffer.as_slice());
        Ok(format!("ev:{}:{kind}{iv}:{key}:{data}:$", version.name()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::random::RandomError;
    use serde_json::Value;

    pub(crate) const OPTIONS: SealOptions = SealOptions {
        version: Version::QkTC,
        role: None,
        origin: 7,
        unix_seconds: 1_700_000_000,
    };

    /// Bytes that differ from draw to draw, the same in every run.
    pub(crate) struct Counting(pub(crate) u32);

    impl Random for Counting {
        fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
            for byte in bytes {
                self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = self.0.to_be_bytes()[0];
            }
            Ok(())
        }
    }

    /// The randomness of the known answers.
    struct Known;

    impl Random for Known {
        fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::try_from(index).unwrap();
            }
            if bytes.len() == 32 {
                bytes.fill(0x22);
            }
            Ok(())
        }
    }

    #[test]
    fn known_answers_are_written_to_the_letter() {
        let text = include_str!("../../../tests/vectors/ciphertext/vectors.json");
        let vectors: Value = serde_json::from_str(text).unwrap();
        let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        let mut written = 0;
        for vector in vectors["strings"].as_array().unwrap() {
            let token = vector["token"].as_str().unwrap();
            let version = match token.get(3..7) {
                Some("QkTC") => Version::QkTC,
                Some("Tk9D") => Version::Tk9D,
                _ => continue,
            };
            let (plain, kind) = match &vector["plain"] {
                Value::String(text) => (text.clone(), ValueType::String),
                Value::Bool(value) => (value.to_string(), ValueType::Boolean),
                other => (other.to_string(), ValueType::Number),
            };
            let role = vector["role"].as_str().map(str::to_owned);
            let options = SealOptions {
                version,
                role,
                ..OPTIONS
            };
            let made = seal(plain.as_bytes(), kind, app.public(), &options, &mut Known).unwrap();
            assert_eq!(made, token);
            written += 1;
        }
        assert_eq!(written, 8);
    }

    #[test]
    fn an_old_version_is_not_written() {
        let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        for version in [Version::T1JL, Version::Tenz, Version::Rfvc] {
            let options = SealOptions { version, ..OPTIONS };
            let made = seal(
                b"x",
                ValueType::String,
                app.public(),
                &options,
                &mut Counting(1),
            );
            assert!(matches!(made, Err(SealError::Version { .. })));
        }
    }

    #[test]
    fn a_number_that_is_none_is_not_written() {
        let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
        let made = |clear: &[u8]| {
            seal(
                clear,
                ValueType::Number,
                app.public(),
                &OPTIONS,
                &mut Counting(1),
            )
        };
        assert_eq!(made(b"1,\"admin\":true"), Err(SealError::Kind));
        made(b"1.10").unwrap();
    }
}
